//! The library `tide` beyond its examples: forms of bytes, charges, bounds, and numbers drawn by an event's identity.

use crate::scripted::*;
use std::sync::Arc;
use tidegate_operators::script::{Host, HostOptions, Watch};
use tidegate_schemas::definition::*;
use tidegate_schemas::row::Cell;
use tidegate_schemas::table::FieldType;

/// Steps and text of `v` for each event of one bundle.
fn through(host: &mut Host, template: Template, events: &[&[u8]]) -> Vec<(u64, String)> {
    let mut bundle = bundle("acme", template, events);
    run(host, &mut bundle);
    let one = |ended| match ended {
        Ended::Rows(rows) => match &rows[0].cells[0] {
            Cell::Text(text) => text.to_string(),
            other => panic!("{other:?}"),
        },
        Ended::Rejected(rejection) => format!("{} {}", rejection.code, rejection.detail),
        other => panic!("{other:?}"),
    };
    bundle.events.iter().zip(ended(&bundle)).map(|(event, ended)| (event.steps, one(ended))).collect()
}

fn text_template(body: &str, steps: u64) -> Template {
    let limits = ScriptLimits { steps, ..ScriptLimits::default() };
    let source = format!("function transform(event) {body} end");
    Template { limits, ..transforming(&source, vec![field("v", FieldType::Text)]) }
}

#[test]
fn readers_agree_over_every_form_and_place() {
    // Every reader over every place of a few bytes, in each of the three forms, against arithmetic that knows no forms.
    let body = "
        local raw = { 0x80, 0x01, 0xFE, 0x7F, 0x00, 0xC3, 0x5A, 0x99, 0x12, 0xFF, 0x37 }
        local s = string.char(table.unpack(raw))
        local forms, wrong = { buffer.fromstring(s), s, raw }, {}
        local function plain(at, n, little)
          local v = 0
          for i = 1, n do v = v * 256 + raw[at + (if little then n - i + 1 else i)] end
          return v
        end
        for n, name in { [1] = '8', [2] = '16', [3] = '24', [4] = '32' } do
          for _, order in if n == 1 then { '' } else { 'be', 'le' } do
            for at = 0, #raw - n do
              local u = plain(at, n, order == 'le')
              local s = if u >= 2 ^ (8 * n - 1) then u - 2 ^ (8 * n) else u
              for form, p in forms do
                if tide.read['u' .. name .. order](p, at) ~= u then table.insert(wrong, `u{name}{order} {at} {form}`) end
                if tide.read['s' .. name .. order](p, at) ~= s then table.insert(wrong, `s{name}{order} {at} {form}`) end
              end
            end
            for _, p in forms do
              for _, at in { #raw - n + 1, -1, 0.5, 0/0, 1/0 } do
                if pcall(tide.read['u' .. name .. order], p, at) then table.insert(wrong, `{name}{order} reads at {at}`) end
              end
            end
          end
        end
        for width = 1, 40 do
          for at = 0, 8 * #raw - width do
            local be, le = 0, 0
            for i = at, at + width - 1 do
              be = be * 2 + bit32.extract(raw[i // 8 + 1], 7 - i % 8)
              le += bit32.extract(raw[i // 8 + 1], i % 8) * 2 ^ (i - at)
            end
            local p = forms[at % 3 + 1]
            if tide.read.bitsbe(p, at, width) ~= be then table.insert(wrong, `bitsbe {at} {width}`) end
            if tide.read.bitsle(p, at, width) ~= le then table.insert(wrong, `bitsle {at} {width}`) end
          end
        end
        for _, p in forms do
          if tide.crc.crc32(p, 2, 5) ~= tide.crc.crc32(string.sub(s, 3, 7)) then table.insert(wrong, 'crc32') end
          if tide.hex.encode(p, 1, 3) ~= '01fe7f' then table.insert(wrong, 'hex') end
          if tide.base64.encode(p) ~= 'gAH+fwDDWpkS/zc=' then table.insert(wrong, 'base64') end
          if tide.read.text(p, 6, 2) ~= 'Z\\x99' then table.insert(wrong, 'text') end
        end
        return { v = table.concat(wrong, ', ') }";
    let found = through(&mut host(), text_template(body, 1_000_000), &[b"{}"]);
    assert_eq!(found[0].1, "");
}

#[test]
fn long_data_is_charged_before_it_is_worked_on() {
    // (what is prepared, the call, at least so many steps more than on nothing)
    let cases = [
        ("local s = ('x'):rep(64000)", "s:sub(2)", "('x'):sub(1)", 999),
        ("local s = ('x'):rep(64000)", "string.byte(s, 1, 4800)", "string.byte('x', 1, 1)", 300),
        ("local s = ('x'):rep(64000)", "s:upper()", "('x'):upper()", 1000),
        ("local s = ('x'):rep(64000)", "tonumber(s)", "tonumber('x')", 1000),
        ("local s = ('x'):rep(64000)", "pcall(error, s)", "pcall(error, 'x')", 1000),
        ("local s = ('x'):rep(64000)", "string.pack('s4', s)", "string.pack('s4', 'x')", 1000),
        ("local s = string.pack('s4', ('x'):rep(64000))", "string.unpack('s4', s)", "string.unpack('s4', '\\1\\0\\0\\0x')", 1000),
        ("local s = ('i'):rep(64000)", "string.packsize(s)", "string.packsize('i')", 1000),
        ("local s = ('x'):rep(64000)", "utf8.offset(s, 9)", "utf8.offset('x', 1)", 1000),
        ("local s = ('x'):rep(64000)", "utf8.len(s)", "utf8.len('x')", 1000),
        ("local s = ('x'):rep(64000)", "utf8.codes(s)", "utf8.codes('x')", 1000),
        ("local s = ('x'):rep(4800)", "utf8.codepoint(s, 1, 4800)", "utf8.codepoint('x', 1, 1)", 300),
        ("local s = table.create(4800, 65)", "utf8.char(table.unpack(s))", "utf8.char(table.unpack({ 65 }))", 600),
        ("local s = table.create(4800, 65)", "string.char(table.unpack(s))", "string.char(table.unpack({ 65 }))", 600),
        ("local s = table.create(4800, 65)", "table.pack(table.unpack(s))", "table.pack(table.unpack({ 65 }))", 600),
        ("local s = table.create(16000, 65)", "table.insert(s, 1, 2)", "table.insert({}, 1, 2)", 1000),
        ("local s = table.create(16000, 65)", "table.remove(s, 1)", "table.remove({}, 1)", 999),
        ("local s = table.create(16000, 65)", "table.find(s, 1)", "table.find({}, 1)", 999),
        ("local s = table.create(16000, 65)", "table.clone(s)", "table.clone({})", 1000),
        ("local s = table.create(16000, 65)", "table.clear(s)", "table.clear({})", 1000),
        ("local s = {} for i = 1, 4096 do s[i] = i end", "table.sort(s, rawequal)", "table.sort({}, rawequal)", 4096 * 12),
        ("local s = table.create(16000, 65)", "table.foreach(s, function() end)", "table.foreach({}, type)", 16000),
        ("local s = table.create(16000, 65)", "table.foreachi(s, function() end)", "table.foreachi({}, type)", 16000),
        ("local s = table.create(16000, 65)", "table.maxn(s)", "table.maxn({})", 16000),
        ("local s = ('x'):rep(9000)", "s:gsub('x', rawlen)", "('x'):gsub('x', rawlen)", 18000),
        ("local s = ('x'):rep(64000)", "buffer.fromstring(s)", "buffer.fromstring('x')", 1000),
        ("local s = buffer.create(64000)", "buffer.tostring(s)", "buffer.tostring(buffer.create(1))", 999),
        ("local s = buffer.create(64000)", "buffer.readstring(s, 0, 64000)", "buffer.readstring(s, 0, 1)", 1000),
        ("local s = buffer.create(64000)", "buffer.fill(s, 0, 1)", "buffer.fill(s, 0, 1, 1)", 1000),
        ("local s = buffer.create(64000)", "buffer.copy(s, 0, s)", "buffer.copy(s, 0, s, 0, 1)", 1000),
        ("local s, b = ('x'):rep(64000), buffer.create(64000)", "buffer.writestring(b, 0, s)", "buffer.writestring(b, 0, 'x')", 1000),
        ("local s = ('x'):rep(64000)", "tide.hex.encode(s)", "tide.hex.encode('x')", 1000),
        ("local s = ('0'):rep(64000)", "tide.hex.decode(s)", "tide.hex.decode('00')", 1000),
        ("local s = ('x'):rep(64000)", "tide.base64.encode(s)", "tide.base64.encode('x')", 1000),
        ("local s = ('A'):rep(64000)", "tide.base64.decode(s)", "tide.base64.decode('AAAA')", 1000),
        ("local s = ('x'):rep(64000)", "tide.crc.crc32(s)", "tide.crc.crc32('x')", 1000),
        ("local s = table.create(16000, 65)", "tide.crc.crc32(s)", "tide.crc.crc32({ 65 })", 1000),
        ("local s = ('x'):rep(64000)", "tide.read.text(s, 0, 64000)", "tide.read.text(s, 0, 1)", 1000),
        ("local s = ('x'):rep(64000)", "tide.regex.test(s, 'y')", "tide.regex.test('x', 'y')", 1000),
        ("local s = ('x'):rep(640)", "tide.regex.all(s, 'x')", "tide.regex.all('x', 'x')", 640 + 640 * 4),
        ("local s = ('x'):rep(640)", "tide.regex.replace(s, 'x', 'y')", "tide.regex.replace('x', 'x', 'y')", 640 + 640 * 4),
    ];
    for native in [true, false] {
        let mut host = Host::new(HostOptions { states_max: 1, native }, Arc::new(Watch::default()));
        for (prepared, long, short, least) in cases {
            let mut steps = |call: &str| {
                let found =
                    through(&mut host, text_template(&format!("{prepared} local _ = {call} return {{ v = 'x' }}"), 1_000_000), &[b"{}"]);
                assert_eq!(found[0].1, "x", "{call}");
                found[0].0
            };
            let (long_steps, short_steps) = (steps(long), steps(short));
            assert!(long_steps >= short_steps + least, "{long}: {long_steps} steps, {short}: {short_steps}");
            assert!(long_steps <= short_steps + 3 * least + 16_000, "{long}: {long_steps} steps, {short}: {short_steps}");
        }
    }
}

#[test]
fn results_have_bounds() {
    for (body, told) in [
        ("local s = ('x'):rep(1e6) s = s .. s return s:sub(2)", "string.sub makes more than 1048576 bytes"),
        ("local s = ('x'):rep(1e6) s = s .. s return s:lower()", "string.lower makes more than 1048576 bytes"),
        ("local s = ('x'):rep(1e6) s = s .. s return s:match('.*')", "a string above 1048576 bytes is not searched"),
        ("local s = ('x'):rep(1e6) s = s .. s return buffer.fromstring(s)", "buffer.fromstring makes more than 1048576 bytes"),
        ("local s = ('x'):rep(1e6) s = s .. s return string.unpack('z', s)", "string.unpack reads no more than 1048576 bytes"),
        ("return string.pack('c2000000', 'x')", "string.pack makes more than 1048576 bytes"),
        ("return string.pack('s4s4', ('x'):rep(6e5), ('x'):rep(6e5))", "string.pack makes more than 1048576 bytes"),
        ("return tide.hex.encode(('x'):rep(6e5))", "tide.hex.encode makes more than 1048576 bytes"),
        ("return tide.base64.encode(('x'):rep(1e6))", "tide.base64.encode makes more than 1048576 bytes"),
        ("local s = ('x'):rep(1e6) return tide.base64.decode(s .. s)", "tide.base64.decode makes more than 1048576 bytes"),
        ("local s = ('x'):rep(1e6) return tide.crc.crc8(s .. s)", "tide works on up to 1048576 bytes at once"),
        ("return tide.regex.test(('x'):rep(7e4), 'x')", "the text has 70000 bytes, and a pattern of this size searches 65536"),
        ("return tide.regex.replace(('x'):rep(6e4), '.*', ('$0'):rep(100))", "the replacement makes more than 1048576 bytes"),
        ("return tide.regex.replace('x', 'x', '$1')", "the replacement names group \"1\", which the pattern lacks; a dollar sign is $$"),
        ("return tide.regex.test('x', ('x'):rep(2000))", "the pattern has 2000 bytes, above 1024"),
    ] {
        let found = through(&mut host(), text_template(body, 1_000_000), &[b"{}"]);
        assert_eq!(found[0].1, format!("script_error {told}"), "{body}");
    }
}

#[test]
fn random_numbers_follow_from_the_event() {
    let body = "local t = {} for i = 1, 8 do t[i] = tide.random(1000) end return { v = table.concat(t, ' ') }";
    let events: [&[u8]; 3] = [b"{}", b"{\"a\":1}", b"{}"];
    let first: Vec<String> = through(&mut host(), text_template(body, 10_000), &events).into_iter().map(|e| e.1).collect();
    assert!(first[0] != first[1] && first[1] != first[2] && first[0] != first[2], "{first:?}");
    // Whatever ran before, however it ran: an event draws its own numbers.
    for native in [true, false] {
        let mut host = Host::new(HostOptions { states_max: 1, native }, Arc::new(Watch::default()));
        through(&mut host, text_template("while true do tide.random() end", 900), &events);
        let again: Vec<String> = through(&mut host, text_template(body, 10_000), &events).into_iter().map(|e| e.1).collect();
        assert_eq!(first, again);
    }
    // Even spread, as far as a few thousand draws tell.
    let spread = "local n = table.create(10, 0) for i = 1, 10000 do n[tide.random(0, 9) + 1] += 1 end
        for _, c in n do if c < 850 or c > 1150 then return { v = table.concat(n, ' ') } end end
        local sum = 0 for i = 1, 1000 do sum += tide.random() end
        return { v = if sum > 450 and sum < 550 then 'even' else tostring(sum) }";
    assert_eq!(through(&mut host(), text_template(spread, 1_000_000), &[b"{}"])[0].1, "even");
    // On both sides of a native stage.
    let template = Template {
        decode: Some(Decode::Script(script("function decode() return { data = { r = tide.random() } } end"))),
        validate: Some(Validate::Rules(Vec::new())),
        ..text_template("return { v = tostring(event.decoded.r == tide.random()) }", 10_000)
    };
    assert_eq!(through(&mut host(), template, &[b"{}"])[0].1, "false");
}

#[test]
fn a_pattern_costs_the_same_whatever_was_compiled_before() {
    let body = "for i = 1, 50 do tide.regex.test('x', 'p' .. i) end
        return { v = tostring(tide.regex.test('ab1', '^[a-z]+\\\\d$')) .. tostring(tide.regex.match('k=v', '(?<key>\\\\w)=').key) }";
    let mut host = host();
    let found = through(&mut host, text_template(body, 100_000), &[b"{}", b"{}", b"{}"]);
    let again = through(&mut host, text_template(body, 100_000), &[b"{}"]);
    assert!(found.iter().chain(&again).all(|e| e.1 == "truek" && e.0 == found[0].0), "{found:?} {again:?}");
    assert!(found[0].0 > 52 * 100, "{found:?}");
}
