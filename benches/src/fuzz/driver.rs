//! The driver of scripts: any document under any script, with little memory and few steps, on heaps that have seen many
//! others. It agrees with its oracle, keeps to what was allowed, and leaves the next event of every tenant as it was.

use super::input::Input;
use std::cell::RefCell;
use std::sync::Arc;
use tidegate_operators::event::{Bundle, Progress};
use tidegate_operators::script::{Host, HostOptions, Watch};
use tidegate_schemas::definition::{Decode, Encoding, Payload, PayloadForm, ScriptLimits, Template, Transform, Validate};
use tidegate_schemas::table::FieldType;

/// What the tests of scripts share.
#[allow(dead_code, missing_docs)]
#[path = "../../../operators/tests/it/scripted.rs"]
mod scripted;

/// Bodies of a stage's function over `x`, its argument, and `n`. None asks for an order that depends on addresses.
const BODIES: [&str; 20] = [
    "return x",
    "return { n = n, s = tostring(x), v = x }",
    "return { data = x, v = x.decoded, n = n }",
    "return { { n = n }, { n = n + 1, extra = x.a }, { v = x.v } }",
    "local t = {} for i = 1, n do t[i] = { n = i, s = 'row' } end return t",
    "local t = {} for k, v in x do t[k] = v end return t",
    "local t = x for i = 1, n do t = { a = t, [i] = i } end return { v = t, data = t }",
    "local t = { n = n } t.v = t return t",
    "return n % 2 == 0, { code = 'c' .. n, detail = x.a, pointer = '/' .. n }",
    "return false, { { code = 1 }, x, 'text', { pointer = null } }",
    "return { errors = x.a, data = { n = n } }",
    "return true",
    "return nil",
    "return ({ 1, 'x', true, null, tide, buffer.create(3) })[n % 7]",
    "error(x)",
    "error('at ' .. n, n)",
    "local ok, e = pcall(error, x) return { s = tostring(ok) .. type(e) }",
    "local t = {} for i = 1, n * n do t[i] = buffer.create(i) end return { n = #t }",
    "pcall(function() local s = 'x' for i = 1, n do s ..= s end end) return { n = n, data = { n = n } }",
    "kept[#kept + 1] = table.create(n * 100, x) return { n = n, data = { n = n } }",
];
/// Acts of one input.
const ACTS_MAX: usize = 6;
/// Inputs after which the states start over, so that a find can be repeated.
const INPUTS_MAX: usize = 200;

/// The driver and its oracle, in the interpreter and in native code.
struct Hosts {
    of: [[Host; 2]; 2],
    inputs: usize,
}

thread_local! {
    static HOSTS: RefCell<Hosts> = RefCell::new(hosts());
}

fn hosts() -> Hosts {
    let of = [false, true].map(|native| {
        let options = HostOptions { states_max: 2, native };
        [Host::new(options, Arc::new(Watch::default())).with_forms_after(1), Host::oracle(options, Arc::new(Watch::default()))]
    });
    Hosts { of, inputs: 0 }
}

/// Runs a few acts one after the other.
pub fn driver(bytes: &[u8]) {
    HOSTS.with_borrow_mut(|hosts| {
        hosts.inputs += 1;
        if hosts.inputs > INPUTS_MAX {
            *hosts = self::hosts();
        }
        let mut input = Input(bytes);
        for _ in 0..ACTS_MAX {
            if input.is_empty() {
                break;
            }
            act(hosts, &mut input);
        }
    });
}

fn act(hosts: &mut Hosts, input: &mut Input<'_>) {
    let (kind, tenant) = (input.u8(), ["acme", "other", "third"][usize::from(input.u8() % 3)]);
    let limits = ScriptLimits {
        steps: u64::from(input.u16()),
        // From less than a state takes to more than most of the bodies need.
        memory_bytes: u64::from(input.u16()) * 64,
        result_bytes: 4 << u32::from(input.u8() % 16),
    };
    let n = input.u8();
    let fields = vec![
        scripted::field("n", FieldType::F64),
        scripted::field("s", FieldType::Text),
        scripted::field("v", FieldType::Json),
        scripted::field("i", FieldType::I64),
    ];
    let form = [PayloadForm::Buffer, PayloadForm::String, PayloadForm::Bytes][usize::from(kind >> 4 & 3) % 3];
    let payload = Some(Payload { at: None, encoding: Encoding::None, form, f_port: Some("/a".into()) });
    let mut template = Template { payload, limits, ..scripted::template(fields) };
    if kind & 0x40 != 0 {
        template.inputs = vec!["a".into(), "v".into()];
    }
    let is_free = kind & 0x80 != 0;
    let mut script = |stage: &str| {
        let body = if is_free {
            let len = usize::from(input.u8());
            String::from_utf8_lossy(input.take(len)).into_owned()
        } else {
            BODIES[usize::from(input.u8()) % BODIES.len()].to_owned()
        };
        scripted::script(&format!("local kept, n = {{}}, {n}\nfunction {stage}(x)\n{body}\nend"))
    };
    template.decode = (kind & 1 != 0).then(|| Decode::Script(script("decode")));
    template.validate = (kind & 2 != 0).then(|| Validate::Script(script("validate")));
    template.transform = (kind & 4 != 0).then(|| Transform::Script(script("transform")));
    let len = usize::from(input.u16()) % 1_024;
    let document = input.take(len);
    // The second of a form is made by a function, where there can be one.
    let events: [&[u8]; 3] = [document, document, if kind & 8 != 0 { document } else { br#"{"a":[1,{"b":null}],"v":"x"}"# }];

    for of_code in &mut hosts.of {
        let [driver, oracle] = of_code.each_mut().map(|host| {
            let mut bundle = scripted::bundle(tenant, template.clone(), &events);
            scripted::run(host, &mut bundle);
            host.take_faults();
            for tenant in ["acme", "other"] {
                assert_eq!(world(host, tenant), "[F64(7.0), Text(\"ok\")]", "the next event of {tenant}");
            }
            bundle
        });
        let ends = scripted::ended(&driver).into_iter().zip(scripted::ended(&oracle));
        for ((event, expected), ends) in driver.events.iter().zip(&oracle.events).zip(ends) {
            assert!(event.steps <= limits.steps, "{} steps of {}", event.steps, limits.steps);
            // Where memory ends is not the same to the byte, and free scripts may ask for an order that addresses decide.
            if !is_free && !is_out_of_memory(&driver) && !is_out_of_memory(&oracle) && !is_untold(&oracle) {
                assert_eq!((format!("{:?}", ends.0), event.steps), (format!("{:?}", ends.1), expected.steps));
            }
        }
    }
}

fn is_out_of_memory(bundle: &Bundle) -> bool {
    bundle.events.iter().any(|event| matches!(&event.progress, Progress::Rejected(r) if r.code == "memory_exhausted"))
}

/// Whether an error was lost: mlua's handler of errors, which the driver has not, works within the script's memory.
fn is_untold(bundle: &Bundle) -> bool {
    let lost = |detail: &str| ["<nil>", "error in error handling"].contains(&detail);
    bundle.events.iter().any(|event| matches!(&event.progress, Progress::Rejected(r) if lost(&r.detail)))
}

/// What an event of no harm becomes.
fn world(host: &mut Host, tenant: &str) -> String {
    let source =
        "function transform(event) return { n = event.n, s = if leak == nil and tide.hex.encode('x') == '78' then 'ok' else 'no' } end";
    let fields = vec![scripted::field("n", FieldType::F64), scripted::field("s", FieldType::Text)];
    let mut bundle = scripted::bundle(tenant, scripted::transforming(source, fields), &[br#"{"n":7}"#]);
    scripted::run(host, &mut bundle);
    format!("{:?}", scripted::rows(scripted::ended(&bundle).remove(0))[0].cells)
}
