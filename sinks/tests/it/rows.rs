//! Blocks as the pipeline builds them.

use crate::log::LOG;
use std::sync::Arc;
use tidegate_schemas::block::{Attribution, Block, EpochHeader, Head, RowsBuilder, ScriptRun, script_runs};
use tidegate_schemas::ids::{Partition, Position};
use tidegate_schemas::row::{Cell, Origin, Row};
use tidegate_schemas::sink::Target;
use tidegate_schemas::table::{Field, FieldType, Table};

pub fn target(table: &str, tenant: &str) -> Target {
    Target { table: table.into(), tenant: Some(tenant.to_owned().try_into().unwrap()) }
}

/// A table with a temperature in degrees Celsius, and more fields where named.
pub fn table(id: &str, more: &[(&str, FieldType, Option<&str>)]) -> Table {
    let base = Table {
        id: id.to_owned().try_into().unwrap(),
        owner: "vendor".to_owned().try_into().unwrap(),
        name: id.to_owned(),
        fields: Vec::new(),
    };
    let field = |(name, kind, unit): &(&str, FieldType, Option<&str>)| Field {
        name: (*name).into(),
        kind: *kind,
        unit: unit.map(Into::into),
        required: false,
        min: None,
        max: None,
    };
    let mut fields = vec![field(&("temperature", FieldType::F64, Some("Cel")))];
    fields.extend(more.iter().map(field));
    base.with(&fields).unwrap()
}

pub fn of(partition: Partition, header: &EpochHeader) -> Attribution {
    Attribution { log: LOG, partition, epoch: header.epoch, recorded_at: header.recorded_at }
}

/// Rows of several tenants, sorted by tenant. Raw positions follow from epoch, tenant and number.
pub fn blocks(partition: Partition, header: &EpochHeader, table: &Table, counts: &[(&str, usize)]) -> Vec<Block> {
    let mut builder = RowsBuilder::new(of(partition, header), table, 0);
    for (tenant, count) in counts {
        for i in 0..*count {
            let origin = Origin {
                at: Position { offset: header.epoch * 1_000, ordinal: i as u32 },
                index: (i * 1_000 + tenant_number(tenant)) as u32,
                event_id: Arc::from(format!("{tenant}-{}-{i}", header.epoch)),
                asset: Arc::from(format!("{tenant}-pump-{}", i % 3)),
                received_at: header.recorded_at - 1_000,
            };
            let cells = table
                .fields
                .iter()
                .map(|f| match f.kind {
                    FieldType::F64 if i % 5 == 0 => Cell::Null,
                    FieldType::F64 => Cell::F64(i as f64 / 2.0),
                    FieldType::I64 => Cell::I64(i as i64),
                    FieldType::Bool => Cell::Bool(i % 2 == 0),
                    FieldType::Timestamp => Cell::Timestamp(header.recorded_at),
                    FieldType::Text | FieldType::Json => Cell::Text(format!("{tenant} says {i}").into()),
                })
                .collect();
            let attributes = if i % 2 == 0 { vec![("site".into(), format!("{tenant}-site").into())] } else { Vec::new() };
            let row = Row { occurred_at: header.recorded_at - 5_000_000, event_type: "reading".into(), cells, attributes };
            let organization = &format!("{tenant}/north");
            builder.push(Head { tenant, organization, source: "mqtt", template: "climate@3", origin: &origin, number: 0 }, &row).unwrap();
        }
    }
    builder.finish().unwrap()
}

pub fn runs(partition: Partition, header: &EpochHeader, tenants: &[&str]) -> Vec<Block> {
    let run = |tenant: &&str| ScriptRun {
        tenant: (*tenant).into(),
        template: "climate@3".into(),
        stage: "decode".into(),
        runs: 10,
        codes: vec![("script_error".into(), "2".into())],
        failures: 2,
        steps: 500,
        bytes: 4_000,
        duration: 77,
    };
    script_runs(&of(partition, header), &tenants.iter().map(run).collect::<Vec<_>>()).unwrap()
}

fn tenant_number(tenant: &str) -> usize {
    tenant.bytes().map(usize::from).sum::<usize>() % 1_000
}
