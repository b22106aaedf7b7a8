//! The guide for data engineers and what scripts get cannot part: every example in it is run, from Luau.

use crate::scripted::*;
use tidegate_schemas::definition::*;
use tidegate_schemas::row::Cell;
use tidegate_schemas::table::FieldType;

const GUIDE: &str = include_str!("../../README.md");

/// The Luau around the examples: values compared in depth, and what differs told with the guide's line.
const CHECKS: &str = "
local told = {}
local function show(v)
  if type(v) ~= 'table' then return if type(v) == 'string' then string.format('%q', v) else tostring(v) end
  local parts = {}
  for k, e in v do table.insert(parts, `[{show(k)}] = {show(e)}`) end
  return '{ ' .. table.concat(parts, ', ') .. ' }'
end
local function gives(line, found, expected)
  found, expected = show(found), show(expected)
  if found ~= expected then table.insert(told, `line {line}: {found}, and the guide says {expected}`) end
end
local function fails(line, f, expected)
  local ok, message = pcall(f)
  if ok or not string.find(message, expected, 1, true) then table.insert(told, `line {line}: {ok} {message}`) end
  if not ok and not string.find(message, '^transform:%d+: ') then table.insert(told, `line {line} has no place of its own: {message}`) end
end
";

/// Blocks of examples with the line of each.
fn examples() -> Vec<Vec<(usize, &'static str)>> {
    let mut blocks = Vec::new();
    let mut block: Option<Vec<(usize, &str)>> = None;
    for (number, line) in GUIDE.lines().enumerate() {
        match (&mut block, line) {
            (None, "```lua") => block = Some(Vec::new()),
            (Some(_), "```") => blocks.extend(block.take()),
            (Some(lines), line) => lines.push((number + 1, line)),
            (None, _) => {}
        }
    }
    blocks
}

fn statement((number, line): &(usize, &str)) -> String {
    if let Some((expression, expected)) = line.split_once("-->") {
        return format!("gives({number}, table.pack({}), table.pack({}))\n", expression.trim(), expected.trim());
    }
    match line.split_once("--!") {
        Some((expression, message)) => format!("fails({number}, function() return {} end, {:?})\n", expression.trim(), message.trim()),
        None => format!("{line}\n"),
    }
}

fn transform(source: &str) -> String {
    let limits = ScriptLimits { steps: 1_000_000, ..ScriptLimits::default() };
    let template = Template { limits, ..transforming(source, vec![field("v", FieldType::Text)]) };
    match rows(one(&mut host(), template, "{}"))[0].cells[0].clone() {
        Cell::Text(text) => text.into(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_example_holds() {
    let blocks = examples();
    assert!(blocks.len() >= 10, "{}", blocks.len());
    let mut told = String::new();
    for block in blocks {
        let body: String = block.iter().map(statement).collect();
        let source = format!("{CHECKS}\nfunction transform(event)\n{body}\nreturn {{ v = table.concat(told, '\\n') }} end");
        told += &transform(&source);
    }
    assert!(told.is_empty(), "{told}");
}

#[test]
fn every_function_has_an_example() {
    let list = "function transform(event)
        local names = {}
        local function walk(prefix, t)
          for name, v in t do
            if type(v) == 'table' then walk(prefix .. name .. '.', v) else table.insert(names, prefix .. name) end
          end
        end
        walk('tide.', tide)
        table.sort(names)
        return { v = table.concat(names, ' ') }
      end";
    let examples: String = examples().into_iter().flatten().map(|(_, line)| format!("{line}\n")).collect();
    let names = transform(list);
    assert!(names.split(' ').count() >= 50, "{names}");
    let without: Vec<&str> =
        names.split(' ').filter(|n| !examples.contains(&format!("{n}(")) && !examples.contains(&format!("{n} "))).collect();
    assert!(without.is_empty(), "without an example: {without:?}");
}
