use tidegate_schemas::catalog::{Catalog, CatalogError};
use tidegate_schemas::definition::*;
use tidegate_schemas::ids::*;
use tidegate_schemas::sink::CutParameters;
use tidegate_schemas::table::{Column, Field, FieldType, Table};

fn organization(id: &str, kind: NodeKind, parent: Option<&str>) -> Definition {
    Definition::Organization(Organization {
        id: NodeId::new(id).unwrap(),
        kind,
        name: id.into(),
        parent: parent.map(|p| NodeId::new(p).unwrap()),
    })
}

fn table(owner: &str, fields: &[(&str, FieldType)]) -> Definition {
    let fields = fields.iter().map(|(n, k)| Column { name: (*n).into(), kind: *k, unit: None }).collect();
    Definition::Table(Table {
        id: TableId::new(&format!("climate-{owner}")).unwrap(),
        owner: NodeId::new(owner).unwrap(),
        name: "climate".into(),
        fields,
    })
}

fn template(owner: &str, id: &str, fields: &[(&str, FieldType)]) -> Definition {
    let fields =
        fields.iter().map(|(n, k)| Field { name: (*n).into(), kind: *k, unit: None, required: false, min: None, max: None }).collect();
    Definition::Template(Box::new(Template {
        id: TemplateId::new(id).unwrap(),
        owner: NodeId::new(owner).unwrap(),
        title: id.into(),
        table: TableId::new(&format!("climate-{owner}")).unwrap(),
        payload: None,
        inputs: vec![],
        fields,
        limits: ScriptLimits::default(),
        decode: None,
        validate: None,
        transform: None,
    }))
}

fn source(node: &str, template: &str) -> Definition {
    Definition::Source(Box::new(Source {
        id: SourceId::new("lns").unwrap(),
        node: NodeId::new(node).unwrap(),
        template: Some(template.into()),
        template_at: None,
        asset: Place::Pointer("/dev".into()),
        event_id: None,
        occurred_at: None,
        event_type: None,
        meta: vec![],
    }))
}

fn apply(catalog: &mut Catalog, after: Option<Definition>, before: Option<Definition>) -> Result<(), CatalogError> {
    let definition = after.as_ref().or(before.as_ref()).unwrap().key();
    let revision = catalog.revision() + 1;
    catalog.apply(&Change { revision, definition, version: 1, actor: "test".into(), at: 0, before, after })
}

fn tree() -> Catalog {
    let mut catalog = Catalog::default();
    for definition in [
        organization("v", NodeKind::Vendor, None),
        organization("acme", NodeKind::Customer, Some("v")),
        organization("site", NodeKind::Site, Some("acme")),
        organization("beta", NodeKind::Customer, Some("v")),
        table("v", &[("t", FieldType::F64)]),
        template("v", "lht65", &[("t", FieldType::F64)]),
    ] {
        apply(&mut catalog, Some(definition), None).unwrap();
    }
    catalog
}

#[test]
fn templates_are_found_upwards_and_never_sideways() {
    let mut catalog = tree();
    apply(&mut catalog, Some(table("acme", &[("x", FieldType::I64)])), None).unwrap();
    apply(&mut catalog, Some(template("acme", "own", &[("x", FieldType::I64)])), None).unwrap();
    let at = |node: &str, name: &str| catalog.template(&NodeId::new(node).unwrap(), name).is_some();
    assert!(at("site", "lht65") && at("site", "own") && at("beta", "lht65"));
    assert!(!at("beta", "own") && !at("v", "own") && !at("site", "none") && !at("site", "../own"));
    let site = catalog.node(&NodeId::new("site").unwrap()).unwrap();
    assert_eq!((&*site.path, site.tenant.as_ref().map(TenantId::as_str)), ("v/acme/site", Some("acme")));
}

#[test]
fn bad_changes_are_refused_and_leave_nothing() {
    let mut catalog = tree();
    let revision = catalog.revision();
    let cases: Vec<(&str, Definition)> = vec![
        ("a customer without a vendor", organization("lost", NodeKind::Customer, None)),
        ("a site below a vendor", organization("lost", NodeKind::Site, Some("v"))),
        ("a vendor below a customer", organization("lost", NodeKind::Vendor, Some("acme"))),
        ("a moved node", organization("site", NodeKind::Site, Some("beta"))),
        ("a table that loses a field", table("v", &[])),
        ("a table that changes a type", table("v", &[("t", FieldType::I64)])),
        ("a template with a field that its table lacks", template("v", "more", &[("u", FieldType::F64)])),
        ("a template with another type", template("v", "other", &[("t", FieldType::Text)])),
        ("a template of a table of nobody", template("acme", "own", &[])),
        ("a source of a vendor", source("v", "lht65")),
        ("a source of an unknown template", source("site", "none")),
    ];
    for (what, definition) in cases {
        assert!(apply(&mut catalog, Some(definition), None).is_err(), "{what}");
        assert_eq!(catalog.revision(), revision, "{what}");
    }
    let gap = Change {
        revision: revision + 2,
        definition: organization("x", NodeKind::Vendor, None).key(),
        version: 1,
        actor: "t".into(),
        at: 0,
        before: None,
        after: None,
    };
    assert_eq!(catalog.apply(&gap), Err(CatalogError::Gap { newest: revision, found: revision + 2 }));
}

#[test]
fn sources_are_unique_in_the_tenant_and_free_beyond_it() {
    let mut catalog = tree();
    apply(&mut catalog, Some(source("site", "lht65")), None).unwrap();
    apply(&mut catalog, Some(source("beta", "lht65")), None).unwrap();
    apply(&mut catalog, Some(source("acme", "lht65")), None).unwrap_err();
    let id = SourceId::new("lns").unwrap();
    assert!(catalog.source(&TenantId::new("acme").unwrap(), &id).is_some());
    assert!(catalog.source(&TenantId::new("site").unwrap(), &id).is_none());
    apply(&mut catalog, None, Some(source("site", "lht65"))).unwrap();
    assert!(catalog.source(&TenantId::new("acme").unwrap(), &id).is_none());
}

#[test]
fn a_changed_edge_holds_from_the_next_one_on() {
    let mut catalog = Catalog::default();
    let closed_by = |catalog: &Catalog, second: i64| catalog.closed_by(second * 1_000_000) / 1_000_000;
    assert_eq!(closed_by(&catalog, 10), 900);
    // The edge from a second on, and by when what comes at some seconds is closed.
    for (edge_seconds, second, closed) in [
        // Nothing was cut by what a new log begins with.
        (30, 0, &[(10, 30)][..]),
        (900, 20, &[(20, 900), (30, 900)]),
        (60, 40, &[(40, 900), (899, 900), (900, 960)]),
        // A second change before the edge does not bring it forward.
        (7, 100, &[(200, 900), (900, 903)]),
        // One to a longer edge is told as that, as long as it is open which of the two it is.
        (600, 1_000, &[(1_000, 1_200), (1_001, 1_200), (1_200, 1_800)]),
        (600, 1_100, &[(1_100, 1_200)]),
    ] {
        let after = Definition::Cut(CutParameters { edge_seconds, ..CutParameters::default() });
        let (revision, definition) = (catalog.revision() + 1, after.key());
        let at = second * 1_000_000;
        catalog.apply(&Change { revision, definition, version: 1, actor: "test".into(), at, before: None, after: Some(after) }).unwrap();
        for (second, expected) in closed {
            assert_eq!(closed_by(&catalog, *second), *expected, "{edge_seconds} at {second}");
        }
    }
}

#[test]
fn a_change_survives_its_record() {
    let after = template("v", "lht65", &[("t", FieldType::F64)]);
    let change = Change { revision: 1, definition: after.key(), version: 2, actor: "a".into(), at: 5, before: None, after: Some(after) };
    assert_eq!(Change::read(&Chain::default().append(&change)).unwrap(), change);
}

/// Changes of one publisher, who knows what counts so far.
fn append(chain: &mut Chain, actor: &str, count: usize) -> Vec<tidegate_schemas::log::Record> {
    (0..count)
        .map(|_| {
            let revision = chain.newest() + 1;
            let after = organization(&format!("{actor}{revision}"), NodeKind::Vendor, None);
            let change =
                Change { revision, definition: after.key(), version: 1, actor: actor.into(), at: 5, before: None, after: Some(after) };
            chain.append(&change)
        })
        .collect()
}

#[test]
fn of_publishers_at_once_one_counts_whatever_the_order() {
    // Two publishers know the same newest change and append three and four; every way in which those may stand in the log.
    for ways in 0u32..1 << 7 {
        if ways.count_ones() != 3 {
            continue;
        }
        let mut read = Chain::default();
        let known = append(&mut Chain::default(), "known", 2);
        assert!(known.iter().all(|r| read.take(r).unwrap()));
        let (mut a, mut b) = (read, read);
        let (of_a, of_b) = (append(&mut a, "a", 3), append(&mut b, "b", 4));
        let (mut next_a, mut next_b) = (of_a.iter(), of_b.iter());
        let mut counted = Vec::new();
        for bit in 0..7 {
            let record = if ways >> bit & 1 == 1 { next_a.next() } else { next_b.next() }.unwrap();
            if read.take(record).unwrap() {
                counted.push(Change::read(record).unwrap());
            }
        }
        // Whoever came first counts with everything, and knows it: nobody else's change stands between.
        let (first, all, end) = if ways & 1 == 1 { ("a", 3, a) } else { ("b", 4, b) };
        assert!(counted.iter().all(|c| c.actor == first), "{ways:b}: {counted:?}");
        assert_eq!((counted.len(), read), (all, end), "{ways:b}");
        // The other one tries again.
        let again = append(&mut read.clone(), "again", 2);
        assert!(again.iter().all(|r| read.take(r).unwrap()));
    }
    for header in ["tg-follows", "tg-revision"] {
        let mut record = append(&mut Chain::default(), "a", 1).remove(0);
        record.headers.retain(|h| h.name != header);
        Chain::default().take(&record).unwrap_err();
    }
}
