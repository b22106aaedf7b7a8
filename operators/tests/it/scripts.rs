//! The script contract: what scripts get, what they may return, and what becomes of it.

use crate::scripted::*;
use tidegate_operators::script;
use tidegate_schemas::definition::*;
use tidegate_schemas::row::Cell;
use tidegate_schemas::table::{Field, FieldType};
use tidegate_schemas::verdict::StageName;

fn text<'a>(cell: &'a Cell<'_>) -> &'a str {
    match cell {
        Cell::Text(text) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_decoder_sees_its_input() {
    let source = "function decode(input)
        local p = input.payload
        return { data = { v = table.concat({ typeof(p), tostring(input.fPort), tostring(input.receivedAt), input.asset.id,
          tostring(input.asset.attributes.floor), tostring(input.meta['x-model']), tostring(input.meta['x-other']),
          if typeof(p) == 'buffer' then buffer.tostring(p) elseif typeof(p) == 'table' then string.char(table.unpack(p)) else p }, '|') } }
      end";
    let payload =
        |at: Option<&str>, encoding, form| Some(Payload { at: at.map(str::to_owned), encoding, form, f_port: Some("/port".into()) });
    let template =
        |payload| Template { payload, decode: Some(Decode::Script(script(source))), ..template(vec![field("v", FieldType::Text)]) };
    let cases = [
        (
            payload(Some("/p"), Encoding::Base64, PayloadForm::Buffer),
            r#"{"p":"aGk=","port":7}"#,
            "buffer|7|1700000000123.456|asset-7|3|m7|nil|hi",
        ),
        (
            payload(Some("/p"), Encoding::Base64, PayloadForm::String),
            r#"{"p":"aGk","port":7}"#,
            "string|7|1700000000123.456|asset-7|3|m7|nil|hi",
        ),
        (payload(Some("/p"), Encoding::Hex, PayloadForm::Bytes), r#"{"p":"6869"}"#, "table|nil|1700000000123.456|asset-7|3|m7|nil|hi"),
        (
            payload(Some("/p"), Encoding::None, PayloadForm::Buffer),
            r#"{"p":"hi","port":1}"#,
            "buffer|1|1700000000123.456|asset-7|3|m7|nil|hi",
        ),
        // Some senders write numbers as texts.
        (
            payload(Some("/p"), Encoding::None, PayloadForm::Buffer),
            r#"{"p":"hi","port":"085"}"#,
            "buffer|85|1700000000123.456|asset-7|3|m7|nil|hi",
        ),
        (
            payload(Some("/p"), Encoding::None, PayloadForm::Buffer),
            r#"{"p":"hi","port":null}"#,
            "buffer|nil|1700000000123.456|asset-7|3|m7|nil|hi",
        ),
        (
            payload(None, Encoding::None, PayloadForm::String),
            "raw \u{1} bytes",
            "string|nil|1700000000123.456|asset-7|3|m7|nil|raw \u{1} bytes",
        ),
    ];
    let mut host = host();
    for (payload, event, expected) in cases {
        let mut bundle = bundle("acme", template(payload), &[event.as_bytes()]);
        bundle.events[0].asset = Some(asset("acme", "asset-7", &[("floor", "3")]));
        run(&mut host, &mut bundle);
        assert_eq!(text(&rows(ended(&bundle).remove(0))[0].cells[0]), expected);
    }
    for (payload, event) in [
        (payload(Some("/p"), Encoding::Base64, PayloadForm::Buffer), r#"{"p":"a*b"}"#),
        (payload(Some("/p"), Encoding::Hex, PayloadForm::Buffer), r#"{"p":"abc"}"#),
        (payload(Some("/p"), Encoding::Hex, PayloadForm::Buffer), r#"{"p":12}"#),
        (payload(Some("/p"), Encoding::Hex, PayloadForm::Buffer), "{}"),
    ] {
        let mut bundle = bundle("acme", template(payload), &[event.as_bytes()]);
        run(&mut host, &mut bundle);
        assert_eq!((bundle.runs[0].runs, bundle.runs[0].failures, bundle.runs[0].codes[0].0.as_str()), (1, 1, "payload_invalid"));
        let rejection = rejection(ended(&bundle).remove(0));
        assert_eq!((rejection.code.as_str(), rejection.pointer.as_str(), rejection.stage), ("payload_invalid", "/p", StageName::Decode));
    }
}

/// A port that is none is no absent one: the decoder would take another branch in silence.
#[test]
fn what_is_no_port_is_refused() {
    let payload = Some(Payload { at: None, encoding: Encoding::None, form: PayloadForm::String, f_port: Some("/up/port".into()) });
    let source = "function decode(input) return { data = { v = tostring(input.fPort) } } end";
    let template = Template { payload, decode: Some(Decode::Script(script(source))), ..template(vec![field("v", FieldType::Text)]) };
    for port in ["\"seven\"", "\"\"", "\"256\"", "\"-1\"", "true", "[1]", "{}", "256", "-1", "2.5", "1e300", "18446744073709551615"] {
        let event = format!("{{\"up\":{{\"port\":{port}}}}}");
        let rejection = rejection(one(&mut host(), template.clone(), &event));
        assert_eq!((rejection.code.as_str(), rejection.pointer.as_str()), ("payload_invalid", "/up/port"), "{port}");
    }
}

/// A block is one record of the log, and a row is in one block.
#[test]
fn rows_above_a_record_are_refused() {
    let map = |field: &str| Mapping { field: field.into(), from: Some("/t".into()), constant: None, scale: None, offset: None };
    let fields = || vec![field("a", FieldType::Text), field("b", FieldType::Text)];
    let mapped = Template { transform: Some(Transform::Mapping(vec![map("a"), map("b")])), ..template(fields()) };
    let more = transforming("function transform(e) return { { a = 'x' }, { a = 'y', more = e.t .. e.t } } end", fields());
    let more = Template { limits: ScriptLimits { result_bytes: 1 << 20, ..ScriptLimits::default() }, ..more };
    for (len, is_taken) in [(300_000, true), (340_000, false)] {
        let event = format!("{{\"t\":\"{}\"}}", "t".repeat(len));
        for (template, count) in [(&mapped, 1), (&more, 2)] {
            let mut bundle = bundle("acme", template.clone(), &[event.as_bytes(), br#"{"t":"z"}"#]);
            run(&mut host(), &mut bundle);
            let [first, second] = ended(&bundle).try_into().unwrap();
            assert_eq!(rows(second).len(), count);
            if is_taken {
                assert_eq!((rows(first).len(), bundle.rows.len()), (count, 2 * count));
            } else {
                assert_eq!((rejection(first).code.as_str(), bundle.rows.len()), ("output_too_large", count));
            }
        }
    }
}

const MISSPELT: &str = "decode returned date and no data: what was decoded goes into data, beside it there are errors and warnings";
const KEYED: &str =
    "decode returned a key that is a boolean and no data: what was decoded goes into data, beside it there are errors and warnings";

#[test]
fn results_of_decode() {
    let template = |source: &str| Template { decode: Some(Decode::Script(script(source))), ..template(vec![field("v", FieldType::Json)]) };
    let mut host = host();
    for (body, code, detail) in [
        ("return { errors = { 'one', 'two' }, data = { v = 1 } }", "decode_failed", "one; two"),
        ("return { errors = 'bad' }", "decode_failed", "bad"),
        ("return { errors = { code = 'bad' } }", "decode_failed", "errors is {\"code\":\"bad\"}"),
        ("return { errors = { '' } }", "decode_failed", "errors is [\"\"]"),
        ("return { errors = false }", "decode_failed", "false"),
        ("return { warnings = {}, date = { v = 1 }, zero = 1 }", "result_invalid", MISSPELT),
        ("return { errors = {}, [true] = 1 }", "result_invalid", KEYED),
        ("return { data = 'x' }", "result_invalid", "decode returned string as data, not a table"),
        ("return nil", "result_invalid", "decode returned nil, not a table"),
        ("return 7", "result_invalid", "decode returned number, not a table"),
        ("\nerror('boom')", "script_error", "boom"),
        ("\nlocal x = nil + 1", "script_error", "attempt to perform arithmetic (add) on nil and number"),
        ("\nstring.rep('x', 1e9)", "script_error", "string.rep makes more than 1048576 bytes"),
        ("\ntide.hex.decode('xy')", "script_error", "invalid character 'x' at position 0"),
        ("\nerror({})", "script_error", "a table was raised"),
        ("\nerror('\\0\\255')", "script_error", "\\x00\\xff"),
        ("\nerror('caf\u{e9} \\200 \\27[2J', 0)", "script_error", "caf\u{e9} \\xc8 \\u{1b}[2J"),
        ("\nerror('')", "script_error", "an error without a message was raised"),
        ("\nerror()", "script_error", "nil"),
    ] {
        let rejection = rejection(one(&mut host, template(&format!("function decode(input) {body} end")), "{}"));
        assert_eq!((rejection.code.as_str(), rejection.detail.as_str()), (code, detail), "{body}");
        assert_eq!(rejection.line, (code == "script_error").then_some(2), "{body}");
        assert_eq!(rejection.stage, StageName::Decode);
    }
    for body in [
        "return { data = { v = { 1, 2 } } }",
        "return { data = { v = { 1, 2 } }, errors = {}, warnings = { 'w' } }",
        "return { data = { v = { 1, 2 } }, errors = null }",
    ] {
        let row = rows(one(&mut host, template(&format!("function decode(input) {body} end")), "{}")).remove(0);
        assert_eq!(text(&row.cells[0]), "[1,2]");
    }
    // No data and no errors: nothing was decoded.
    for result in ["{}", "{ warnings = { 'w' }, errors = {} }", "{ data = null, more = 1 }"] {
        let row = rows(one(&mut host, template(&format!("function decode(input) return {result} end")), r#"{"v":1}"#)).remove(0);
        assert_eq!(row.cells[0], Cell::Null, "{result}");
    }
}

#[test]
fn results_of_validate() {
    let template =
        |source: &str| Template { validate: Some(Validate::Script(script(source))), ..template(vec![field("v", FieldType::I64)]) };
    let mut host = host();
    assert_eq!(rows(one(&mut host, template("function validate(e) return true end"), r#"{"v":1}"#))[0].cells[0], Cell::I64(1));
    for (results, code, pointer, detail) in [
        ("false", "invalid", "", ""),
        ("false, { code = 'late', detail = 'too late', pointer = '/ts' }", "late", "/ts", "too late"),
        ("false, { detail = 'odd' }", "invalid", "", "odd"),
        (
            "false, { { code = 'a', pointer = '/x', detail = 'first' }, { code = 'b', pointer = '/y' }, { code = 'c' } }",
            "a",
            "/x",
            "first; also b at /y, c",
        ),
        ("false, 'because'", "invalid", "", "because"),
        ("nil", "result_invalid", "", "validate returns true or false, not nil"),
        ("1", "result_invalid", "", "validate returns true or false, not number"),
    ] {
        let rejection = rejection(one(&mut host, template(&format!("function validate(e) return {results} end")), "{}"));
        let told = (rejection.code.as_str(), rejection.pointer.as_str(), rejection.detail.as_str());
        assert_eq!(told, (code, pointer, detail), "{results}");
        assert_eq!(rejection.stage, StageName::Validate);
    }
}

#[test]
fn results_of_transform() {
    let fields = || {
        let bounded = Field { min: Some(0.0), max: Some(10.0), ..field("n", FieldType::I64) };
        vec![
            bounded,
            field("f", FieldType::F64),
            field("t", FieldType::Text),
            field("at", FieldType::Timestamp),
            field("j", FieldType::Json),
            field("b", FieldType::Bool),
        ]
    };
    let mut host = host();
    let mut run =
        |returned: &str| one(&mut host, transforming(&format!("function transform(event) return {returned} end"), fields()), r#"{"x":1}"#);
    let row = rows(run("{ n = 3, f = 1, t = 'é', at = 1.5, j = { a = { 1, null }, b = {} }, b = false }")).remove(0);
    let expected = [
        Cell::I64(3),
        Cell::F64(1.0),
        Cell::Text("é".into()),
        Cell::Timestamp(1_500),
        Cell::Text(r#"{"a":[1,null],"b":{}}"#.into()),
        Cell::Bool(false),
    ];
    assert_eq!(row.cells, expected);
    assert_eq!((row.occurred_at, &*row.event_type, row.attributes.len()), (RECEIVED, "probe", 0));

    let row = rows(run("{ n = null, extra = 'as it is', list = { 1, 'a' }, num = 1.5, yes = true, none = null, occurred_at = '2026-01-01T00:00:00.5Z', event_type = 'tick' }")).remove(0);
    assert_eq!(row.cells, vec![Cell::Null; 6]);
    assert_eq!((row.occurred_at, &*row.event_type), (1_767_225_600_500_000, "tick"));
    let attributes: Vec<(&str, &str)> = row.attributes.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(attributes, [("extra", "as it is"), ("list", r#"[1,"a"]"#), ("num", "1.5"), ("yes", "true")]);

    let list = rows(run("{ { n = 1 }, { n = 2, occurred_at = 1000 } }"));
    assert_eq!(list.iter().map(|r| r.cells[0].clone()).collect::<Vec<_>>(), [Cell::I64(1), Cell::I64(2)]);
    assert_eq!(list[1].occurred_at, 1_000_000);
    assert!(matches!(run("nil"), Ended::Filtered));
    assert_eq!(rows(run("setmetatable({ n = 1 }, { __index = { f = 2 } })"))[0].cells[..2], [Cell::I64(1), Cell::Null]);

    for (returned, code, pointer) in [
        ("7", "result_invalid", ""),
        ("{ n = 1.5 }", "wrong_type", "/n"),
        ("{ n = '1' }", "wrong_type", "/n"),
        ("{ n = 11 }", "out_of_range", "/n"),
        ("{ n = -1 }", "out_of_range", "/n"),
        ("{ f = 0/0 }", "wrong_type", "/f"),
        ("{ f = math.huge }", "wrong_type", "/f"),
        ("{ f = '1' }", "wrong_type", "/f"),
        ("{ t = 1 }", "wrong_type", "/t"),
        ("{ t = '\\xff' }", "wrong_type", "/t"),
        ("{ at = 'yesterday' }", "wrong_type", "/at"),
        ("{ at = 1e300 }", "out_of_range", "/at"),
        ("{ at = 0/0 }", "wrong_type", "/at"),
        ("{ at = '0000-01-01T00:00:00Z' }", "out_of_range", "/at"),
        ("{ at = '2300-01-01T00:00:00Z' }", "out_of_range", "/at"),
        ("{ occurred_at = '0000-06-01T12:00:00Z' }", "out_of_range", "/occurred_at"),
        ("{ occurred_at = -2208988800001 }", "out_of_range", "/occurred_at"),
        ("{ { n = 1 }, { n = 2, occurred_at = '9999-12-31T00:00:00Z' } }", "out_of_range", "/1/occurred_at"),
        ("{ j = type }", "wrong_type", "/j"),
        ("{ j = { a = { type } } }", "wrong_type", "/j/a/0"),
        ("{ b = 1 }", "wrong_type", "/b"),
        ("{ occurred_at = {} }", "wrong_type", "/occurred_at"),
        ("{ event_type = 1 }", "wrong_type", "/event_type"),
        ("{ event_type = '' }", "out_of_range", "/event_type"),
        ("{ event_type = ('x'):rep(257) }", "out_of_range", "/event_type"),
        ("{ { n = 1 }, { n = 2, event_type = ('é'):rep(129) } }", "out_of_range", "/1/event_type"),
        ("{ x = buffer.create(1) }", "wrong_type", "/x"),
        ("{ { n = 1 }, { n = 'x' } }", "wrong_type", "/1/n"),
        ("{ { n = 1 }, 7 }", "result_invalid", "/1"),
        ("{ [true] = 1 }", "result_invalid", ""),
        // Only nil leaves an event out.
        ("{}", "result_invalid", ""),
        ("{ n = nil }", "result_invalid", ""),
        ("{ { n = 1 }, n = 2 }", "result_invalid", ""),
        ("{ { n = 1 }, { n = 2 }, [true] = 2 }", "result_invalid", ""),
        ("{ { n = 1 }, nil, { n = 3 }, f = 1 }", "result_invalid", ""),
        ("{ { n = 1 }, {} }", "result_invalid", "/1"),
        ("(function() local t = {} t.t = t return { j = t } end)()", "output_too_large", "/j/t/t/t/t/t/t/t/t/t/t/t/t/t/t/t/t"),
        ("{ t = ('x'):rep(70000) }", "output_too_large", "/t"),
        ("{ x = ('x'):rep(70000) }", "output_too_large", "/x"),
        ("{ t = ('x'):rep(40000), x = ('x'):rep(40000) }", "output_too_large", "/x"),
        ("{ { n = 1 }, { j = { a = { 1, ('x'):rep(70000) } } } }", "output_too_large", "/1/j/a/1"),
        ("(function() local t = {} for i = 1, 300 do t['k' .. i] = 1 end return t end)()", "output_too_large", ""),
        ("table.create(1001, { n = 1 })", "output_too_large", ""),
    ] {
        let rejection = rejection(run(returned));
        assert_eq!((rejection.code.as_str(), rejection.pointer.as_str()), (code, pointer), "{returned}: {}", rejection.detail);
        assert_eq!(rejection.stage, StageName::Transform);
    }
    let required = vec![Field { required: true, ..field("r", FieldType::Text) }];
    for returned in ["{ x = 1 }", "{ r = null }", "{ { r = 'a' }, { x = 1 } }"] {
        let source = format!("function transform(event) return {returned} end");
        let rejection = rejection(one(&mut host, transforming(&source, required.clone()), "{}"));
        assert_eq!(rejection.code, "required", "{returned}");
    }
}

#[test]
fn null_and_large_integers_cross() {
    let same = |kind, event: &str| cell(kind, "function transform(event) return { v = event.v } end", event);
    assert_eq!(same(FieldType::I64, r#"{"v":9007199254740993}"#), Cell::I64(9_007_199_254_740_993));
    assert_eq!(same(FieldType::I64, r#"{"v":-9223372036854775808}"#), Cell::I64(i64::MIN));
    assert_eq!(same(FieldType::I64, r#"{"v":9007199254740992}"#), Cell::I64(1 << 53));
    assert_eq!(same(FieldType::Text, r#"{"v":18446744073709551615}"#), Cell::Text("18446744073709551615".into()));
    assert_eq!(same(FieldType::Json, r#"{"v":[null,{"a":null}]}"#), Cell::Text(r#"[null,{"a":null}]"#.into()));
    let told =
        "function transform(event) return { v = `{event.a == null} {event.b == nil} {event.a == tide.null} {tostring(event.a)}` } end";
    assert_eq!(cell(FieldType::Text, told, r#"{"a":null}"#), Cell::Text("true true true null".into()));
}

#[test]
fn events_of_every_form_cross() {
    let source = "function transform(event)
        local keys = {}
        for k in event do table.insert(keys, k) end
        table.sort(keys)
        return { v = `{table.concat(keys, ' ')} {if event.list then #event.list else 0} {event.value}` } end";
    let wide: Vec<String> = (0..400).map(|i| format!("\"k{i:03}\":{i}")).collect();
    let wide = format!("{{{}}}", wide.join(","));
    let mut host = host();
    // Three of each: the second has its form remembered, the third a constructor of its own.
    for (event, expected) in [
        (r#"{"a b":1,"end":{"x":[]},"\u0000\"\\":2}"#, "\0\"\\ a b end 0 nil"),
        (r#"{"list":[1,[2,{"a":[]}],null]}"#, "list 3 nil"),
        ("[1,2]", "value 0 table"),
        ("7", "value 0 7"),
        ("no json", "value 0 null"),
        (r#"{"twice":1,"twice":2}"#, "twice 0 nil"),
        ("{}", " 0 nil"),
    ] {
        for _ in 0..3 {
            let row = rows(one(&mut host, transforming(source, vec![field("v", FieldType::Text)]), event)).remove(0);
            assert_eq!(text(&row.cells[0]), expected, "{event}");
        }
    }
    let count = "function transform(event) local n = 0 for _ in event do n += 1 end return { v = n } end";
    for _ in 0..3 {
        assert_eq!(rows(one(&mut host, transforming(count, vec![field("v", FieldType::I64)]), &wide))[0].cells[0], Cell::I64(400));
    }
    // More forms than are kept.
    for n in 0..200 {
        let event = format!(r#"{{"k{n}":1,"l":{n}}}"#);
        for _ in 0..3 {
            assert_eq!(rows(one(&mut host, transforming(count, vec![field("v", FieldType::I64)]), &event))[0].cells[0], Cell::I64(2));
        }
    }
    let inputs = Template { inputs: vec!["a".into()], ..transforming(source, vec![field("v", FieldType::Text)]) };
    assert_eq!(text(&rows(one(&mut host, inputs, r#"{"b":1,"a":2,"list":[1]}"#))[0].cells[0]), "a 0 nil");
}

#[test]
fn stages_meet_in_every_combination() {
    let decode = || Some(Decode::Script(script("function decode(input) return { data = { n = 4, s = 'dec' } } end")));
    let valid = || Some(Validate::Script(script("function validate(e) return e.decoded == nil or e.decoded.n == 4 end")));
    let rules = || {
        let rule = |at: &str| Rule {
            at: at.into(),
            kind: Some(FieldType::I64),
            required: true,
            min: Some(1.0),
            max: None,
            one_of: vec![],
            pattern: None,
        };
        Some(Validate::Rules(vec![rule("/n")]))
    };
    let by_script =
        || Some(Transform::Script(script("function transform(e) return { n = if e.decoded then e.decoded.n else e.n, s = e.s } end")));
    let by_map = |from: &str| {
        Some(Transform::Mapping(vec![Mapping { field: "n".into(), from: Some(from.into()), constant: None, scale: None, offset: None }]))
    };
    let mut host = host();
    for (d, v, t, expected) in [
        (None, None, None, (Cell::I64(2), "doc")),
        (Some(Decode::Json), rules(), None, (Cell::I64(2), "doc")),
        (decode(), None, None, (Cell::I64(4), "dec")),
        (decode(), valid(), None, (Cell::I64(4), "dec")),
        (decode(), rules(), None, (Cell::I64(4), "dec")),
        (decode(), valid(), by_script(), (Cell::I64(4), "doc")),
        (decode(), None, by_script(), (Cell::I64(4), "doc")),
        (decode(), rules(), by_script(), (Cell::I64(4), "doc")),
        (decode(), valid(), by_map("/decoded/n"), (Cell::I64(4), "")),
        (decode(), None, by_map("/n"), (Cell::I64(2), "")),
        (None, valid(), by_script(), (Cell::I64(2), "doc")),
        (None, valid(), by_map("/decoded/n"), (Cell::I64(9), "")),
        (None, rules(), by_script(), (Cell::I64(2), "doc")),
    ] {
        let event = if matches!(&t, Some(Transform::Mapping(m)) if d.is_none() && m[0].from.as_deref() == Some("/decoded/n")) {
            r#"{"n":2,"s":"doc","decoded":{"n":9}}"#
        } else {
            r#"{"n":2,"s":"doc"}"#
        };
        let valid_of_own = matches!(&v, Some(Validate::Script(_))) && event.contains("decoded");
        let v = if valid_of_own { Some(Validate::Script(script("function validate(e) return e.decoded.n == 9 end"))) } else { v };
        let template =
            Template { decode: d, validate: v, transform: t, ..template(vec![field("n", FieldType::I64), field("s", FieldType::Text)]) };
        let told = format!("{:?}", (&template.decode, &template.validate, &template.transform));
        let row = rows(one(&mut host, template, event)).remove(0);
        assert_eq!(row.cells[0], expected.0, "{told}");
        assert_eq!(if let Cell::Text(t) = &row.cells[1] { t } else { "" }, expected.1, "{told}");
    }
}

#[test]
fn steps_and_failures_are_accounted_by_stage() {
    let template = Template {
        decode: Some(Decode::Script(script("function decode(i) for _ = 1, 50 do end return { data = {} } end"))),
        validate: Some(Validate::Script(script("function validate(e) for _ in table.create(20, 1) do end return e.ok end"))),
        transform: Some(Transform::Script(script("function transform(e) if e.skip then return nil end return { x = 1 } end"))),
        ..template(vec![])
    };
    let mut bundle = bundle("acme", template, &[br#"{"ok":true}"#, br#"{"ok":false}"#, br#"{"ok":true,"skip":true}"#, b"{}"]);
    run(&mut host(), &mut bundle);
    let told: Vec<_> = bundle.runs.iter().map(|r| (r.stage.as_str(), r.runs, r.failures, r.codes.clone(), r.bytes)).collect();
    let codes = vec![("invalid".to_owned(), "1".to_owned()), ("result_invalid".to_owned(), "1".to_owned())];
    assert_eq!(told, [("decode", 4, 0, vec![], 48), ("validate", 4, 2, codes, 48), ("transform", 2, 0, vec![], 34)]);
    assert_eq!(bundle.runs.iter().map(|r| r.steps).sum::<u64>(), bundle.events.iter().map(|e| e.steps).sum::<u64>());
    assert!((200..230).contains(&bundle.runs[0].steps) && (80..120).contains(&bundle.runs[1].steps), "{:?}", bundle.runs);
}

#[test]
fn check_refuses_what_cannot_run() {
    let decoding = |source: &str| Template { decode: Some(Decode::Script(script(source))), ..template(vec![]) };
    let check = |template: &Template| script::check(template, Default::default());
    check(&decoding("local x = 1 function decode(i) return { data = { x } } end")).unwrap();
    for (source, told) in [
        ("function decode(i)\n return {", "decode, line 2: "),
        ("\n\nlocal x = = 1", "decode, line 3: "),
        ("function other() end", "decode: the script defines no function decode or decodeUplink"),
        ("decode = 7", "decode: the script defines no function decode or decodeUplink"),
        ("\nerror('at once')", "decode, line 2: at once"),
        ("while true do end", "decode, line 1: its top level ends with steps_exhausted"),
        ("local s = 'x' while true do s ..= s end", "decode: its top level ends with memory_exhausted"),
    ] {
        let error = check(&decoding(source)).unwrap_err().to_string();
        assert!(error.starts_with(told), "{source}: {error}");
        // At run time every event gets the same.
        let rejection = rejection(one(&mut host(), decoding(source), "{}"));
        assert!(["script_error", "steps_exhausted", "memory_exhausted"].contains(&rejection.code.as_str()), "{rejection:?}");
    }
    let large = format!("--{}\nfunction decode(i) return {{}} end", "x".repeat(64 << 10));
    assert!(check(&decoding(&large)).unwrap_err().to_string().contains("above 65536"));
    let pattern = Rule { at: "/x".into(), kind: None, required: false, min: None, max: None, one_of: vec![], pattern: Some("(".into()) };
    let error = check(&Template { validate: Some(Validate::Rules(vec![pattern])), ..template(vec![]) }).unwrap_err();
    assert!(error.to_string().starts_with("validate: pattern of /x"), "{error}");
}

#[test]
fn tide_helps() {
    for (expression, expected) in [
        ("tide.now()", "1800000000000"),
        ("tide.hex.encode('hi')", "6869"),
        ("buffer.tostring(tide.hex.decode('6869'))", "hi"),
        ("tide.base64.encode(buffer.fromstring('hi'))", "aGk="),
        ("buffer.tostring(tide.base64.decode('aGk'))", "hi"),
        ("select('#', tide.log('a', 1, nil, {}))", "0"),
        ("pcall(tide.hex.decode, 'x')", "false"),
        ("select(2, pcall(error, 'e'))", "e"),
        ("string.rep('', 1e15)", ""),
        ("string.format('%5.2f|%s|%*|%q', 1.234, 'x', true, 'a')", " 1.23|x|true|\"a\""),
        ("table.concat({ 1, 'b', 3 }, '-', 2)", "b-3"),
        ("('a,b'):split(',')[2]", "b"),
        ("('Hello'):gsub('l', { l = 'L' })", "HeLLo"),
        ("(function() local t = { 3, 1, 2 } table.sort(t) return table.concat(t) end)()", "123"),
        ("table.concat(table.move({ 1, 2, 3 }, 2, 3, 1), ' ')", "2 3 3"),
    ] {
        assert_eq!(text_of(expression), expected, "{expression}");
    }
}
