//! Which faults of the host quarantine a template version, and what its events become then.

use crate::scripted::{bundle, field, host, run, transforming};
use tidegate_operators::event::{Bundle, Progress};
use tidegate_operators::stages::quarantine::{self, Streaks};
use tidegate_schemas::definition::{Quarantine, ScriptLimits, Template};
use tidegate_schemas::ids::{NodeId, Position, TemplateId, TenantId};
use tidegate_schemas::table::FieldType;

/// `m` runs out of memory twice, `s` out of steps, `e` raises, `x` is left out, `g` is good.
fn probe() -> Template {
    let source = "function transform(e)
        if e.k == 'm' then local t = {} while true do t[#t + 1] = table.create(16000, 1) end end
        if e.k == 's' then while true do end end
        if e.k == 'e' then error('no') end
        if e.k == 'x' then return nil end
        return { k = e.k }
    end";
    let limits = ScriptLimits { steps: 200_000, ..ScriptLimits::default() };
    Template { limits, ..transforming(source, vec![field("k", FieldType::Text)]) }
}

fn of(tenant: &str, kinds: &str) -> Bundle {
    let events: Vec<String> = kinds.chars().map(|k| format!("{{\"k\":\"{k}\"}}")).collect();
    bundle(tenant, probe(), &events.iter().map(String::as_bytes).collect::<Vec<_>>())
}

#[test]
fn three_faults_in_a_row_and_nothing_less() {
    for (epochs, failed) in [
        (vec!["mmm"], Some((0, 2))),
        (vec!["mmgmm"], None),
        (vec!["mmemm", "xm"], None),
        (vec!["sssss"], None),
        (vec!["gmm", "m"], Some((1, 0))),
        (vec!["mm", "", "gm"], None),
        (vec!["gggmmmmmm"], Some((0, 5))),
    ] {
        let (mut host, mut streaks, mut told) = (host(), Streaks::default(), Vec::new());
        for (epoch, kinds) in epochs.iter().enumerate() {
            let mut bundles = [of("acme", kinds), of("beta", "g")];
            bundles.iter_mut().for_each(|b| run(&mut host, b));
            let faults = host.take_faults();
            // Whatever order bundles come in.
            bundles.reverse();
            told.extend(streaks.count(&bundles, &faults).into_iter().map(|f| (epoch, f)));
        }
        let found: Vec<_> = told.iter().map(|(epoch, f)| (*epoch, f.at.ordinal)).collect();
        assert_eq!(found, failed.into_iter().collect::<Vec<_>>(), "{epochs:?}");
        assert!(told.iter().all(|(_, f)| f.tenant.as_str() == "acme" && f.code == "memory_exhausted"));
    }
}

#[test]
fn events_of_a_quarantined_version_run_nothing() {
    let version = probe().version();
    let quarantine = Quarantine {
        tenant: TenantId::new("acme").unwrap(),
        owner: NodeId::new("vendor").unwrap(),
        template: TemplateId::new("probe").unwrap(),
        version: version.clone(),
        cause: "timed_out".into(),
        partition: 3,
        epoch: 7,
        at: Position { offset: 41, ordinal: 0 },
    };
    let mut bundles = [of("acme", "gg"), of("beta", "g")];
    quarantine::apply(&mut bundles, |tenant, v| Some(&quarantine).filter(|q| q.tenant == *tenant && q.version == v));
    bundles.iter_mut().for_each(|b| run(&mut host(), b));
    for event in &bundles[0].events {
        let Progress::Rejected(rejection) = &event.progress else { panic!("{:?}", event.progress) };
        assert_eq!((rejection.code.as_str(), event.steps), ("quarantined", 0));
        assert!(rejection.detail.contains(&format!("probe@{}", &version[..12])), "{}", rejection.detail);
        assert!(rejection.detail.contains("timed_out at partition 3, offset 41"), "{}", rejection.detail);
    }
    assert!(bundles[0].runs.is_empty());
    assert!(matches!(bundles[1].events[0].progress, Progress::Transformed(_)));
}
