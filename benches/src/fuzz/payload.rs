//! Payloads in hex and base64, from the bytes of an event to what a decoder gets. Whatever is taken is, encoded again,
//! the text that was sent.

use super::input::Input;
use crate::envelope::envelope;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use std::cell::RefCell;
use std::sync::Arc;
use tidegate_operators::event::{EpochContext, Progress};
use tidegate_operators::script::{Host, HostOptions, Watch};
use tidegate_operators::stages::decode;
use tidegate_operators::stages::open::{self, Slice};
use tidegate_pipeline::definitions::folder::Files;
use tidegate_pipeline::definitions::{Folder, diff::stand_alone};
use tidegate_schemas::catalog::Catalog;
use tidegate_schemas::document::{Document, Kind};
use tidegate_schemas::envelope::Span;
use tidegate_schemas::ids::LogId;
use tidegate_schemas::verdict::Code;

/// Templates by number: encoding, form, and the pointer to the payload.
const TEMPLATES: [(&str, &str, &str); 5] = [
    ("base64", "buffer", "at = \"/p\""),
    ("base64", "string", "at = \"/p\""),
    ("hex", "buffer", "at = \"/p\""),
    ("hex", "bytes", "at = \"/p\""),
    ("none", "string", "at = \"/p\""),
];

/// The decoder tells in hex what it got, whatever form that has.
const DECODER: &str = "function decode(input)
  local p = input.payload
  if type(p) == \"table\" then p = string.char(table.unpack(p)) end
  return { data = { hex = tide.hex.encode(p) } }
end
";
/// What the decoder takes without running out of steps or of Luau's results of one call.
const BYTES_MAX: usize = 2_000;

thread_local! {
    static STAGE: RefCell<(Catalog, Host)> = RefCell::new((catalog(), host()));
}

/// Decodes the payload of an event. The first byte chooses the template.
pub fn payload(bytes: &[u8]) {
    let mut input = Input(bytes);
    let kind = usize::from(input.u8()) % TEMPLATES.len();
    let text = String::from_utf8_lossy(input.take(BYTES_MAX)).into_owned();
    let event = serde_json::json!({ "t": format!("t{kind}"), "p": text }).to_string();
    let slice = slice(event);
    STAGE.with_borrow_mut(|(catalog, host)| {
        let mut bundles = open::apply(&[slice], catalog, LogId([1; 16]), &|_| false);
        decode::apply(&mut bundles[0], host, &EpochContext { recorded_at: 1_800_000_000_000_000 });
        let event = &bundles[0].events[0];
        match (&event.progress, &event.decoded) {
            (Progress::Rejected(rejection), _) => {
                assert_eq!((&*rejection.code, &*rejection.pointer), (Code::PayloadInvalid.as_str(), "/p"), "{rejection:?}");
                assert!(!is_encoded(TEMPLATES[kind].0, &text), "{text:?} is refused: {}", rejection.detail);
            }
            (_, Some(decoded)) => taken(TEMPLATES[kind].0, &text, decoded),
            other => panic!("{other:?}"),
        }
    });
}

fn taken(encoding: &str, text: &str, decoded: &Document) {
    let Some(Kind::Text(digits)) = decoded.pointer("/hex").map(|v| v.kind()) else { panic!("{decoded:?}") };
    let bytes = hex::decode(digits).unwrap();
    match encoding {
        "hex" => assert_eq!(digits, text.to_lowercase()),
        "base64" => assert_eq!(STANDARD_NO_PAD.encode(&bytes), text.trim_end_matches('='), "{text:?} has {digits}"),
        _ => assert_eq!(bytes, text.as_bytes()),
    }
}

/// What must be taken: pairs of digits; groups of four, the last one padded or not, with no bit that means nothing.
fn is_encoded(encoding: &str, text: &str) -> bool {
    match encoding {
        "hex" => text.len().is_multiple_of(2) && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "base64" => {
            let bare = text.strip_suffix("==").or(text.strip_suffix('=')).unwrap_or(text);
            let padded = bare.len() == text.len() || text.len().is_multiple_of(4);
            let value = |b: u8| b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".iter().position(|c| *c == b);
            let last = bare.bytes().last().and_then(value).unwrap_or(0);
            let unused = match bare.len() % 4 {
                1 => return false,
                2 => last % 16,
                3 => last % 4,
                _ => 0,
            };
            padded && bare.bytes().all(|b| value(b).is_some()) && unused == 0
        }
        _ => true,
    }
}

fn host() -> Host {
    Host::new(HostOptions { states_max: 1, native: false }, Arc::new(Watch::default()))
}

fn catalog() -> Catalog {
    let mut files: Files = [
        (
            "organizations.toml",
            "[[organization]]\nid = \"v\"\nkind = \"vendor\"\nname = \"V\"\n\n\
             [[organization]]\nid = \"acme\"\nkind = \"customer\"\nname = \"Acme\"\nparent = \"v\"\n",
        ),
        ("sources.toml", "[[source]]\nid = \"lns\"\nnode = \"acme\"\nasset = { fixed = \"a\" }\ntemplate_at = { pointer = \"/t\" }\n"),
    ]
    .map(|(path, text)| (path.to_owned(), text.to_owned()))
    .into();
    for (n, (encoding, form, at)) in TEMPLATES.iter().enumerate() {
        let text = format!(
            "id = \"t{n}\"\ntitle = \"T\"\ntable = \"T\"\n\n[payload]\n{at}\nencoding = \"{encoding}\"\nform = \"{form}\"\n\n\
             [[validate]]\nat = \"/p\"\n"
        );
        files.insert(format!("templates/v/t{n}/template.toml"), text);
        files.insert(format!("templates/v/t{n}/decode.luau"), DECODER.to_owned());
    }
    stand_alone(&Folder::parse(&files).unwrap().definitions).unwrap()
}

fn slice(event: String) -> Slice {
    let span = Span { index: 0, start: 0, len: event.len() as u32 };
    let envelope = envelope("acme", "lns", vec![span]).unwrap();
    Slice { offset: 0, envelope: Arc::new(envelope), value: Bytes::from(event), from: 0, to: 1 }
}
