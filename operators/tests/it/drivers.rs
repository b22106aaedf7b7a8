//! The driver of production and its oracle, native code and the interpreter, a fresh heap and a used one: the same rows,
//! verdicts and steps. (A numeric `for` that is left in its middle, by `break`, `return` or an error, is one step more in
//! native code: of scripts that do that, steps are compared within either code only.)

use crate::hostile::{corpus, places};
use crate::scripted::*;
use crate::workloads::{lines, w3};
use proptest::prelude::*;
use std::sync::Arc;
use tidegate_operators::event::{Bundle, Event, Progress};
use tidegate_operators::script::{Host, HostOptions, Watch};
use tidegate_schemas::definition::*;
use tidegate_schemas::table::FieldType;

/// Every way to run: each driver in the interpreter, and in native code.
struct Hosts([[Host; 2]; 2]);

impl Hosts {
    fn new() -> Self {
        Self([false, true].map(|native| {
            let options = HostOptions { states_max: 4, native };
            // The second document of a form is made by a function, where there can be one.
            [Host::new(options, Arc::new(Watch::default())).with_forms_after(1), Host::oracle(options, Arc::new(Watch::default()))]
        }))
    }

    /// Runs a bundle in every way; what came of it in the interpreter and in native code, which is the same for both drivers.
    fn agree(&mut self, what: &str, make: impl Fn() -> Bundle) -> [Vec<String>; 2] {
        self.0.each_mut().map(|of_code| {
            let [driver, oracle] = of_code.each_mut().map(|host| {
                let mut bundle = make();
                run(host, &mut bundle);
                let mut all = told(&bundle);
                all.extend(host.take_faults().into_iter().map(|fault| fault.code));
                all
            });
            assert_eq!(driver, oracle, "{what}");
            driver
        })
    }
}

/// What came of a bundle: of each event, and of each stage. Luau's collector goes by the clock, so memory does not end at the
/// same step every time: of what ran out of it only the verdict is told.
fn told(bundle: &Bundle) -> Vec<String> {
    let is_exhausted = |event: &Event| matches!(&event.progress, Progress::Rejected(r) if r.code == "memory_exhausted");
    if bundle.events.iter().any(is_exhausted) {
        return bundle.events.iter().zip(ended(bundle)).map(|(e, end)| format!("{end:?} {:?}", e.decoded)).collect();
    }
    let events = bundle.events.iter().zip(ended(bundle)).map(|(e, end)| format!("{end:?} {:?} after {} steps", e.decoded, e.steps));
    events.chain([format!("{:?}", bundle.runs)]).collect()
}

#[test]
fn the_corpus_of_hostile_scripts() {
    let mut hosts = Hosts::new();
    // These ask in which order tables with tables as keys are walked, which depends on addresses.
    const ADDRESSES: [&str; 1] = ["50_pairs_order.lua"];
    for (name, body) in corpus().into_iter().filter(|(name, _)| !ADDRESSES.contains(&name.as_str())) {
        for template in places(&body, ScriptLimits::default()) {
            // The second event meets what the first one left behind.
            hosts.agree(&format!("{name}\n{template:?}"), || bundle("acme", template.clone(), &[b"{}", br#"{"a":[1,{"b":null}]}"#]));
        }
    }
}

/// Documents of every form: each kind of value, names that repeat, order that changes, more than is ever pinned.
fn documents() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        r#"{}"#,
        r#"[]"#,
        r#"null"#,
        r#"7"#,
        r#""text""#,
        r#"[1,[2,[3,{"a":{"a":{"a":[]}}}]]]"#,
        r#"{"a":1,"b":2,"c":3}"#,
        r#"{"c":1,"b":2,"a":3}"#,
        r#"{"a":1,"a":{"a":2},"b":{"a":1,"b":{"c":3,"a":4}}}"#,
        r#"{"n":null,"t":true,"f":false,"i":-5,"d":0.1,"e":1e300,"z":-0.0,"s":"\u0000\ud83d\ude00\n"}"#,
        r#"{"big":9007199254740993,"edge":9007199254740992,"low":-9007199254740993,"u":18446744073709551615,"beyond":1e400}"#,
        r#"{"decoded":1,"value":2,"data":3,"errors":4,"code":5,"":6,"occurred_at":"2026-01-02T03:04:05Z"}"#,
        r#"{"v":"x","deep":[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    for n in 0..40 {
        let members: Vec<String> = (0..40).map(|i| format!("\"name{}\":{{\"inner{}\":{i}}}", n * 40 + i, i * n)).collect();
        all.push(format!("{{{}}}", members.join(",")).into_bytes());
    }
    all.push(format!("{{\"{}\":1,\"v\":\"{}\"}}", "long".repeat(100), "text".repeat(5_000)).into_bytes());
    all.push(format!("{}1{}", "[".repeat(60), "]".repeat(60)).into_bytes());
    all
}

#[test]
fn documents_of_every_form() {
    let mut hosts = Hosts::new();
    let echo = "function transform(event) return { v = event, n = event.a, s = event.v } end";
    let each = "function transform(event)
        local rows = {}
        for k, v in event do rows[#rows + 1] = { v = { [k] = v }, [k] = v, s = typeof(v) } end
        table.sort(rows, function(a, b) return a.s < b.s end)
        return if #rows > 0 then rows else nil end";
    let decode = "function decode(input) return { data = { v = input, s = typeof(input.payload) } } end";
    let fields = || vec![field("v", FieldType::Json), field("n", FieldType::F64), field("s", FieldType::Text)];
    let (all, limits) = (documents(), ScriptLimits { steps: 100_000, ..ScriptLimits::default() });
    // Each as the first of its form, then as one that is known.
    let events: Vec<&[u8]> = all.iter().flat_map(|event| [event.as_slice(); 3]).collect();
    for inputs in [vec![], vec!["a".to_owned(), "v".into(), "name7".into(), "absent".into()]] {
        for source in [echo, each] {
            let template = Template { inputs: inputs.clone(), limits, ..transforming(source, fields()) };
            hosts.agree(source, || bundle("acme", template.clone(), &events));
        }
        for form in [PayloadForm::Buffer, PayloadForm::String, PayloadForm::Bytes] {
            let payload = Some(Payload { at: None, encoding: Encoding::None, form, f_port: Some("/a".into()) });
            let template =
                Template { payload, inputs: inputs.clone(), limits, decode: Some(Decode::Script(script(decode))), ..template(fields()) };
            hosts.agree(decode, || bundle("acme", template.clone(), &events));
            let scripted = Template { transform: Some(Transform::Script(script(echo))), ..template.clone() };
            hosts.agree(decode, || bundle("acme", scripted.clone(), &events));
        }
    }
}

#[test]
fn the_workload_of_three_scripts() {
    let (Some(sample), Some(folder)) = (lines("w3-sample.ndjson"), shared("workload/s5")) else { return };
    let (mut hosts, events) = (Hosts::new(), sample.iter().map(String::as_bytes).collect::<Vec<_>>());
    let whole = w3(&folder);
    // All stages in Luau, and each of them beside one that is not.
    let later = Template { transform: None, ..whole.clone() };
    let judged = Template { validate: Some(Validate::Rules(Vec::new())), ..whole.clone() };
    for template in [whole, later, judged] {
        let [interpreted, native] = hosts.agree("W3", || bundle("acme", template.clone(), &events));
        assert_eq!(interpreted, native);
    }
}

/// Results that readers of them may trip over.
#[test]
fn results_of_every_form() {
    let mut hosts = Hosts::new();
    let fields =
        || vec![field("v", FieldType::Json), field("n", FieldType::I64), field("s", FieldType::Text), field("t", FieldType::Timestamp)];
    for body in [
        "return nil",
        "return {}",
        "return { {} }",
        "return { { n = 1 }, { n = 2, extra = { 1, 2 } }, 7 }",
        "return { { n = 1 }, [3] = { n = 3 } }",
        "return { { n = 1 }, n = 2 }",
        "return { { n = 1 }, [1.5] = 2 }",
        "return { n = '9007199254740993', s = 'x', other = 'y', more = 1.5, none = null, [7] = true }",
        "return { n = '12' }",
        "return { n = 2^53 }",
        "return { n = 1e300 }",
        "return { n = -0.0, v = -0.0 }",
        "return { v = 0/0 }",
        "return { v = { 1, nil, 3 } }",
        "return { v = { a = 1, [1] = 2, [2.5] = 3 } }",
        "return { v = { [true] = 1 } }",
        "return { s = '\\200', v = '\\200' }",
        "return { ['\\200'] = 1 }",
        "return { other = '\\200' }",
        "return { v = { ['\\200'] = 1 } }",
        "return { v = buffer.create(2) }",
        "return { v = transform }",
        "return { s = {} }",
        "return { t = '2026-01-02T03:04:05Z', occurred_at = 1767323045000, event_type = 'kind' }",
        "return { t = 'never', n = 1 }",
        "return { n = 1, occurred_at = 'never' }",
        "return { n = 1, event_type = 7 }",
        "return setmetatable({ n = 1 }, { __index = function() return 'x' end, __iter = function() error('asked') end })",
        "return setmetatable({}, { __index = { n = 1 } })",
        "local t = { n = 1 } t.v = t return t",
        "local t = {} for i = 1, 300 do t['f' .. i] = i end return t",
        "local t = {} for i = 1, 1001 do t[i] = { n = i } end return t",
        "local t = { 1 } for i = 1, 20 do t = { t } end return { v = t }",
        "return { v = ('x'):rep(70000) }",
        "return { s = ('x'):rep(70000) }",
        "return 7",
        "return 'text'",
        "return null",
        "error('boom')",
        "error('not enough memory', 0)",
        "error({})",
        "error(null)",
        "error()",
        "\nerror('two\\nlines', 2)",
        "tide.hex.decode('xy')",
        "return { v = tide.regex.match('a1', '(') }",
        "local function deep(n) return 1 + deep(n + 1) end return { n = deep(1) }",
        "local n = 0 local function deep() n += 1 return deep() + 1 end pcall(deep) return { n = n }",
        "local n = 0 local function deep(s) n += 1 return (s:gsub('.', deep)) end pcall(deep, 'x') return { n = n }",
    ] {
        let limits = ScriptLimits { steps: 200_000, ..ScriptLimits::default() };
        let transform = Template { limits, ..transforming(&format!("function transform(event) {body} end"), fields()) };
        let decode = |source: String| Template { limits, decode: Some(Decode::Script(script(&source))), ..template(fields()) };
        let rules = Some(Validate::Rules(Vec::new()));
        for template in [
            transform,
            decode(format!("function decode(input) local function f() {body} end return {{ data = f() }} end")),
            Template {
                validate: rules,
                ..decode(format!("function decode(input) local function f() {body} end return {{ data = f() }} end"))
            },
            decode(format!("function decode(input) local function transform() {body} end return transform() end")),
            decode(format!("function decode(input) local function f() {body} end return {{ errors = f() }} end")),
            Template {
                validate: Some(Validate::Script(script(&format!(
                    "function validate(event) local function f() {body} end return false, f() end"
                )))),
                ..template(fields())
            },
            Template {
                validate: Some(Validate::Script(script(&format!("function validate(event) local function f() {body} end return f() end")))),
                ..template(fields())
            },
        ] {
            hosts.agree(body, || bundle("acme", template.clone(), &[b"{}", br#"{"n":1}"#]));
        }
    }
}

/// A script whose result follows from its event alone, and what it does to the state that it runs in.
#[derive(Debug, Clone)]
struct Act {
    tenant: usize,
    /// Of [`bodies`].
    body: usize,
    n: u32,
    memory_mib: u64,
    steps: u64,
}

/// Bodies of `transform`; `N` is the act's number. Loops are left at their end only.
const BODIES: [&str; 14] = [
    "return { n = N, s = tostring(event.a), v = event }",
    "return { { n = N }, { n = N + 1, extra = 'x' }, { s = 's', v = { N, { N } } } }",
    "local t = {} for i = 1, N do t[i] = { i } end return { n = #t }",
    "local n = 0 for i = 1, N * 10 do n += i end return { n = n }",
    "error('at ' .. N)",
    "local ok, why = pcall(error, { N }) return { s = tostring(ok) .. type(why) }",
    "local ok, why = pcall(tide.hex.decode, 'x' .. N) return { s = why }",
    "return { v = tide.regex.all(('ab'):rep(N), 'a'), n = tide.random(1000) }",
    // So much at once, far above or far below each limit.
    "local t = {} for i = 1, 64 do t[i] = buffer.create(1000000) end return { n = #t }",
    "local ok = pcall(function() local t = {} for i = 1, 64 do t[i] = buffer.create(1000000) end end) return { s = tostring(ok) }",
    "local t = {} for i = 1, N % 4 do t[i] = buffer.create(100000) end return { n = #t }",
    // Leaves as much as it can for those that come after it.
    "if #kept < 30 then kept[#kept + 1] = table.create(60000, N) end return { n = N }",
    "local s = '' for i = 1, N do s ..= tostring(i) end return { s = s:sub(1, 20), v = { s:byte(1, 5) } }",
    "local t = setmetatable({}, { __index = function(_, k) return k end, __tostring = function() error('told') end }) error(t)",
];

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = (0..3_usize, 0..BODIES.len(), 0..200_u32, prop::sample::select(vec![6, 12, 24]), prop::sample::select(vec![200, 10_000]));
    prop::collection::vec(act.prop_map(|(tenant, body, n, memory_mib, steps)| Act { tenant, body, n, memory_mib, steps }), 1..16)
}

impl Act {
    fn bundle(&self) -> Bundle {
        let body = BODIES[self.body].replace('N', &self.n.to_string());
        let source = format!("local kept = {{}}\nfunction transform(event) {body} end");
        let fields = vec![field("n", FieldType::I64), field("s", FieldType::Text), field("v", FieldType::Json)];
        let limits = ScriptLimits { memory_bytes: self.memory_mib << 20, steps: self.steps, ..ScriptLimits::default() };
        let template = Template { limits, ..transforming(&source, fields) };
        bundle(["acme", "other", "third"][self.tenant], template, &[br#"{"a":[1,2]}"#, br#"{"a":null}"#, b"[]"])
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever tenants, errors and memory faults came before: an event has the result that it has on a fresh heap.
    #[test]
    fn no_heap_tells_what_came_before(acts in acts()) {
        let mut used = Hosts::new();
        for act in &acts {
            let [interpreted, native] = used.agree(&format!("{act:?}"), || act.bundle());
            prop_assert_eq!(&interpreted, &native, "{:?}", act);
            let mut fresh = Host::new(HostOptions { states_max: 1, native: true }, Arc::new(Watch::default()));
            let mut alone = act.bundle();
            run(&mut fresh, &mut alone);
            let mut all = told(&alone);
            all.extend(fresh.take_faults().into_iter().map(|fault| fault.code));
            prop_assert_eq!(all, native, "{:?} after {:?}", act, acts);
        }
    }
}
