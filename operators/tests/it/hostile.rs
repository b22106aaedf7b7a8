//! Hostile scripts end in a value or a rejection within bounds: they never hang, panic or escape.

use crate::scripted::*;
use std::sync::Arc;
use tidegate_operators::script::{Host, HostOptions, Watch};
use tidegate_schemas::definition::*;
use tidegate_schemas::ids::TenantId;
use tidegate_schemas::row::Cell;
use tidegate_schemas::table::FieldType;
use tidegate_schemas::verdict::Rejection;

/// What scripts of the corpus return or print when they got through.
const ESCAPES: [&str; 8] = ["ESCAPED", "BYTECODE RAN", "READ FILE", "HIJACK", "secret", "0x", "has loadlib", "os.time=true"];

/// The shared corpus, where this machine has it, and our own scripts.
pub fn corpus() -> Vec<(String, String)> {
    let own = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/hostile");
    let (mut scripts, shared) = (Vec::new(), shared("hostile"));
    for folder in shared.iter().chain([&own]) {
        let files = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path());
        scripts.extend(files.map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(p).unwrap())));
    }
    scripts.sort();
    assert!(scripts.len() >= if shared.is_some() { 164 } else { 91 }, "{}", scripts.len());
    scripts
}

fn decoding(source: &str, limits: ScriptLimits) -> Template {
    Template { decode: Some(Decode::Script(script(source))), limits, ..template(vec![field("v", FieldType::Text)]) }
}

fn within_bounds(name: &str, ended: &Ended) -> String {
    let text = match ended {
        Ended::Rows(rows) => format!("{rows:?}"),
        Ended::Filtered => "filtered".to_owned(),
        Ended::Rejected(Rejection { code, detail, .. }) => {
            assert!(detail.len() <= 512);
            format!("{code} {detail}")
        }
    };
    assert!(text.len() <= 2 << 20, "{name}: {} bytes", text.len());
    assert!(!ESCAPES.iter().any(|e| text.contains(e)), "{name}: {text}");
    text
}

/// A script body in every place where it could do harm: in a stage, at the top level, as the whole source, and with its raw
/// value as the result of each stage.
pub fn places(body: &str, limits: ScriptLimits) -> [Template; 5] {
    let function = format!("local function body(...)\n{body}\nend\n");
    let with = |text: &str| format!("{function}{text}");
    let json = |template: Template| Template { fields: vec![field("v", FieldType::Json)], limits, ..template };
    [
        decoding(&with("function decode(input) return { data = { v = tostring(body()) } } end"), limits),
        decoding(&with("local v = tostring(body())\nfunction decode(input) return { data = { v = v } } end"), limits),
        decoding(body, limits),
        json(decoding(&with("function decode(input) return { data = { v = body() } } end"), limits)),
        json(transforming(&with("function transform(event) return body() end"), vec![])),
    ]
}

/// What a script finds of the world: the names of everything that it can reach, and whether some of it still works.
const WORLD: &str = "function transform(event)
    local names = {}
    local function walk(prefix, t)
      for name, v in t do
        table.insert(names, prefix .. tostring(name) .. '=' .. tostring(v))
        if type(v) == 'table' and #prefix < 30 then walk(prefix .. tostring(name) .. '.', v) end
      end
    end
    for _, library in { string, table, math, bit32, buffer, utf8, tide } do walk('.', library) end
    table.sort(names)
    local works = ('x'):rep(3) .. tide.hex.encode('x') .. tostring({}) .. tostring(event.n) .. string.format('%d', 7) .. tide.crc.crc8('x')
    local own = tostring(leak) .. tostring(shared) .. tostring(X) .. tostring(getmetatable('').leak) .. tostring(tide.leak)
    return { v = works .. own .. tide.random() .. tide.crc.crc32(table.concat(names)) }
  end";

fn world(host: &mut Host, tenant: &str) -> String {
    let template = Template {
        limits: ScriptLimits { steps: 100_000, ..ScriptLimits::default() },
        ..transforming(WORLD, vec![field("v", FieldType::Text)])
    };
    let mut bundle = bundle(tenant, template, &[br#"{"n":5}"#]);
    run(host, &mut bundle);
    format!("{:?}", rows(ended(&bundle).remove(0))[0].cells)
}

#[test]
fn the_corpus_is_stopped() {
    let scripts = corpus();
    let mut slowest = (std::time::Duration::ZERO, String::new());
    for native in [true, false] {
        let watch = Arc::new(Watch::default());
        let _watchdog = Watchdog::start(Arc::clone(&watch));
        let mut host = Host::new(HostOptions { states_max: 4, native }, watch);
        let before = world(&mut host, "acme");
        for steps in [10_000, 1_000_000] {
            for (name, body) in &scripts {
                let limits = ScriptLimits { steps, ..ScriptLimits::default() };
                // At the hard limit time stops many of them: one place is enough there.
                let places = places(body, limits).into_iter().take(if steps > 10_000 { 1 } else { usize::MAX });
                for template in places {
                    let mut bundle = bundle("acme", template, &[b"{}"]);
                    let began = std::time::Instant::now();
                    run(&mut host, &mut bundle);
                    let took = began.elapsed();
                    let told = within_bounds(name, &ended(&bundle)[0]);
                    let spent = bundle.events[0].steps;
                    assert!(spent <= steps, "{name}: {spent} steps, {told}");
                    if took > slowest.0 {
                        slowest = (took, format!("{name}, native {native}, {steps} steps: {}", told.get(..60).unwrap_or(&told)));
                    }
                    // The next event of the tenant, and of another one, is none the worse.
                    for tenant in ["acme", "other"] {
                        assert_eq!(world(&mut host, tenant), before, "{name}, {tenant}");
                    }
                }
            }
        }
    }
    // Past the capture of the test's output: a reader of the log sees it where nothing fails as well.
    let line = format!("{} hostile scripts, slowest stop {:?} (tries included): {}\n", scripts.len(), slowest.0, slowest.1);
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
}

#[test]
fn what_ran_out_is_what_is_told() {
    let mut host = host();
    for (body, code) in [
        ("while true do end", "steps_exhausted"),
        ("while true do pcall(function() while true do end end) end", "steps_exhausted"),
        ("return xpcall(function() while true do end end, function() while true do end end)", "steps_exhausted"),
        ("pcall(function() while true do end end) return 1", "steps_exhausted"),
        ("local t = {} for i = 1, 1e9 do t[i] = i end", "steps_exhausted"),
        (
            "local t = {} for i = 1, 1000 do t[i] = i * 7919 % 1009 end for i = 1, 9 do table.sort(t, function(a, b) return a > b end) end",
            "steps_exhausted",
        ),
        ("string.find(('a'):rep(800000), ('a'):rep(400000) .. 'b', 1, true)", "steps_exhausted"),
        ("table.move({}, 1, 1e14, 2)", "steps_exhausted"),
        ("local s = 'x' while true do s = s .. s end", "memory_exhausted"),
        ("pcall(function() local s = 'x' while true do s = s .. s end end) return 1", "memory_exhausted"),
        ("xpcall(function() local s = 'x' while true do s = s .. s end end, function() end) return 1", "memory_exhausted"),
        ("return string.rep('x', 2000000)", "script_error"),
        ("return string.format('%s%s', ('x'):rep(300000), ('y'):rep(800000))", "steps_exhausted"),
        ("return ('x'):rep(100000):gsub('x', ('y'):rep(1000))", "steps_exhausted"),
        ("local y = ('y'):rep(20000) return ('x'):rep(60):gsub('x', function() return y end)", "script_error"),
        ("return buffer.create(2000000)", "script_error"),
        ("local s = ('x'):rep(1000) return string.format(('%s'):rep(1100), table.unpack(table.create(1100, s)))", "script_error"),
        ("return table.concat(table.create(1100, ('x'):rep(1000)))", "script_error"),
        ("error({})", "script_error"),
    ] {
        let source = format!("function decode(input) {body} end");
        let rejection = rejection(one(&mut host, decoding(&source, ScriptLimits::default()), "{}"));
        assert_eq!(rejection.code, code, "{body}: {}", rejection.detail);
    }
    let codes: Vec<String> = host.take_faults().into_iter().map(|f| f.code).collect();
    assert_eq!(codes, ["memory_exhausted"; 3]);
    assert!(host.take_faults().is_empty());
}

#[test]
fn no_memory_is_not_all_of_it() {
    let limits = ScriptLimits { memory_bytes: 0, ..ScriptLimits::default() };
    let rejection =
        rejection(one(&mut host(), decoding("function decode() return { data = { v = ('x'):rep(100000) } } end", limits), "{}"));
    assert_eq!(rejection.code, "memory_exhausted");
}

#[test]
fn time_is_tried_twice_and_told() {
    let watch = Arc::new(Watch::default());
    let _watchdog = Watchdog::start(Arc::clone(&watch));
    let mut host = Host::new(HostOptions { states_max: 4, native: true }, watch);
    // Each comparison is one step and some milliseconds.
    let source = "function decode() local a = ('a'):rep(1000000) for _ = 1, 3 do a = a .. a end local b, c, n = a .. 'b', a .. 'c', 0
        for i = 1, 9000 do pcall(function() if b < c then n += 1 end end) end return { data = { v = n } } end";
    let limits = ScriptLimits { memory_bytes: 64 << 20, steps: 1_000_000, ..ScriptLimits::default() };
    assert_eq!(rejection(one(&mut host, decoding(source, limits), "{}")).code, "timed_out");
    let faults = host.take_faults();
    assert_eq!((faults.len(), faults[0].code.as_str(), faults[0].at.offset), (1, "timed_out", 9));
}

#[test]
fn a_full_state_is_replaced() {
    let mut host = host();
    // Keeps what it can in an upvalue: more than half the ceiling stays in use whatever is collected.
    let hoarder = "local kept = {} function decode(input) while true do kept[#kept + 1] = table.create(16000, 1) end end";
    for _ in 0..3 {
        let limits = ScriptLimits { steps: 1_000_000, ..ScriptLimits::default() };
        assert_eq!(rejection(one(&mut host, decoding(hoarder, limits), "{}")).code, "memory_exhausted");
        let fits =
            "function decode(input) local t = {} for i = 1, 9 do t[i] = table.create(16000, 1) end return { data = { v = 'fits' } } end";
        rows(one(&mut host, decoding(fits, ScriptLimits::default()), "{}"));
    }
    assert_eq!(host.take_faults().len(), 3);
}

#[test]
fn nothing_outside_is_reachable() {
    for name in [
        "require",
        "loadstring",
        "load",
        "collectgarbage",
        "getfenv",
        "setfenv",
        "newproxy",
        "gcinfo",
        "print",
        "_G",
        "os",
        "io",
        "debug",
        "coroutine",
        "package",
        "dofile",
        "math.random",
        "math.randomseed",
        "string.dump",
    ] {
        assert_eq!(text_of(name), "nil", "{name}");
    }
    for (attempt, told) in [
        ("string.leak = 1", "readonly"),
        ("getmetatable('').__index = {}", "readonly"),
        ("tide.leak = 1", "readonly"),
        ("tide.hex.leak = 1", "readonly"),
        ("leak = 1", "readonly"),
        ("table.insert(table, 1)", "readonly"),
        ("rawset(string, 'leak', 1)", "readonly"),
        ("setmetatable(string, {})", "readonly"),
        ("event.decoded.x = 1", "nil"),
    ] {
        let source = format!("function transform(event) {attempt} return {{}} end");
        let rejection = rejection(one(&mut host(), transforming(&source, vec![]), "{}"));
        assert!(rejection.code == "script_error" && rejection.detail.contains(told), "{attempt}: {rejection:?}");
        assert_eq!(rejection.line, Some(1));
    }
    for (value, text) in [
        ("{}", "table"),
        ("print", "nil"),
        ("type", "function"),
        ("null", "null"),
        ("buffer.create(1)", "buffer"),
        ("string.format('%s %d', {}, 1)", "table 1"),
        ("`{type}`", "function"),
    ] {
        assert_eq!(text_of(value), text, "{value}");
    }
}

#[test]
fn tenants_do_not_meet() {
    let mut host = host();
    let leak = "shared = 'mine' local up = {} function transform(event) up.seen = (up.seen or 0) + 1 return { v = tostring(shared) .. up.seen } end";
    let look = "function transform(event) return { v = tostring(shared) } end";
    let fields = || vec![field("v", FieldType::Text)];
    let mut seen = |tenant: &str, source: &str| {
        let mut bundle = bundle(tenant, transforming(source, fields()), &[b"{}"]);
        run(&mut host, &mut bundle);
        format!("{:?}", rows(ended(&bundle).remove(0))[0].cells[0])
    };
    assert!(seen("acme", leak).contains("mine1"));
    // Neither another template of the tenant nor the same template of another tenant.
    assert!(seen("acme", look).contains("nil"));
    assert!(seen("other", leak).contains("mine1"));
    assert!(seen("other", look).contains("nil"));
    // More than there are states: some are in the same, and none meets what another keeps.
    for round in 1..=2 {
        for n in 0..100 {
            assert!(seen(&format!("tenant-{n}"), leak).contains(&format!("mine{round}")), "tenant-{n}");
            assert!(seen(&format!("tenant-{n}"), look).contains("nil"), "tenant-{n}");
        }
    }
}

#[test]
fn who_takes_too_much_is_alone_with_it() {
    let mut host = host();
    let count = "local up = {} function transform(event) up.seen = (up.seen or 0) + 1 return { v = tostring(up.seen) } end";
    let mut run_one = |tenant: &str, source: &str| {
        let limits = ScriptLimits { steps: 1_000_000, ..ScriptLimits::default() };
        let template = Template { limits, ..transforming(source, vec![field("v", FieldType::Text)]) };
        let mut bundle = bundle(tenant, template, &[b"{}"]);
        run(&mut host, &mut bundle);
        ended(&bundle).remove(0)
    };
    // How often each of the others has been seen: 1 where its state has started over.
    let others = |run_one: &mut dyn FnMut(&str, &str) -> Ended| -> Vec<u64> {
        (0..100)
            .map(|n| rows(run_one(&format!("tenant-{n}"), count))[0].cells[0].clone())
            .map(|cell| match cell {
                Cell::Text(text) => text.parse().unwrap(),
                other => panic!("{other:?}"),
            })
            .collect()
    };
    assert_eq!(others(&mut run_one), [1; 100]);
    // What fails is thrown away with what it kept, and nobody else loses anything.
    for hoard in ["local kept = {}", ""] {
        let source = format!(
            "{hoard} function transform() local kept = kept or {{}} while true do kept[#kept + 1] = table.create(16000, 1) end end"
        );
        assert_eq!(rejection(run_one("glutton", &source)).code, "memory_exhausted");
    }
    assert_eq!(others(&mut run_one), [2; 100]);
    // What stays below the limit makes its state start over once, and goes on in one of its own.
    let keeps = "local kept = {} function transform() for i = 1, 40 do kept[i] = table.create(16000, i) end return { v = 'kept' } end";
    let neighbours = |seen: &[u64]| seen.iter().filter(|n| **n == 1).count();
    rows(run_one("hoarder", keeps));
    let seen = others(&mut run_one);
    assert!((1..25).contains(&neighbours(&seen)), "{seen:?}");
    for round in 0..3 {
        rows(run_one("hoarder", keeps));
        assert_eq!(neighbours(&others(&mut run_one)), 0, "{round}");
    }
}

/// Where a script has just taken all the memory, a native still gets its arguments (by way of a stack of the host's that grows where
/// nothing of it is free), and an error is still told.
#[test]
fn the_host_needs_none_of_a_scripts_memory() {
    let asset = |number: usize| asset("acme", &number.to_string(), &[("number", &number.to_string())]);
    let new = || Host::new(HostOptions { states_max: 1, native: false }, Arc::new(Watch::default()));
    for body in ["error('x')", "tide.hex.encode('x')"] {
        let source =
            format!("function transform(e) local t = table.create(e.n, 0) pcall(function() {body} end) return {{ v = 'done' }} end");
        let run_some = |host: &mut Host, memory_bytes: u64, bodies: &[&[u8]]| {
            let limits = ScriptLimits { memory_bytes, ..ScriptLimits::default() };
            let mut bundle = bundle("acme", Template { limits, ..transforming(&source, vec![field("v", FieldType::Text)]) }, bodies);
            // Each asset whose attributes are kept takes a place of that stack.
            bundle.events.iter_mut().enumerate().for_each(|(number, event)| event.asset = Some(asset(number)));
            run(host, &mut bundle);
            for end in &ended(&bundle) {
                let told = within_bounds(body, end);
                assert!(!told.starts_with("script_error") || told.contains("a table was raised"), "{body}: {told}");
            }
            host.used_memory(&TenantId::new("acme").unwrap()).unwrap() as u64
        };
        for kept in 1..40 {
            let small = vec![br#"{"n":0}"#.as_slice(); kept];
            let limit = run_some(&mut new(), (16 << 20) - 1, &small) + 20_000;
            for n in (900..1_260).step_by(20) {
                let last = format!("{{\"n\":{n}}}");
                run_some(&mut new(), limit, &[&small, [last.as_bytes()].as_slice()].concat());
            }
        }
    }
}

#[test]
fn steps_are_the_same_every_time() {
    for native in [true, false] {
        let source = "function transform(e) local n = 0 for i = 1, 100 do n += #tostring(i) end string.find(('a'):rep(500), 'b') return { v = tostring(n) } end";
        let mut host = Host::new(HostOptions { states_max: 4, native }, Arc::new(Watch::default()));
        let mut steps = Vec::new();
        for _ in 0..3 {
            let mut bundle = bundle("acme", transforming(source, vec![field("v", FieldType::Text)]), &[b"{}", b"{\"a\":1}", b"{}", b"{}"]);
            run(&mut host, &mut bundle);
            steps.extend(bundle.events.iter().map(|e| e.steps));
            assert_eq!(bundle.runs[0].steps, bundle.events.iter().map(|e| e.steps).sum::<u64>());
        }
        steps.dedup();
        assert!(steps.len() == 1 && (300..1000).contains(&steps[0]), "{steps:?}");
    }
}
