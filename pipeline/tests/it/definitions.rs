//! Definitions: folders, their messages, what changes between two of them, and how changes become a catalog.

mod applied;
pub mod control_log;
mod demo;
mod faults;
mod manual;

use tidegate_pipeline::definitions::folder::Files;

/// A small folder in which nothing is wrong.
pub fn base() -> Files {
    files(&[
        (
            "organizations.toml",
            "[[organization]]\nid = \"vend\"\nkind = \"vendor\"\nname = \"Vend\"\n\n\
             [[organization]]\nid = \"cust\"\nkind = \"customer\"\nname = \"Cust\"\nparent = \"vend\"\n",
        ),
        ("sources.toml", "[[source]]\nid = \"src\"\nnode = \"cust\"\ntemplate = \"t1\"\nasset = { pointer = \"/device\" }\n"),
        ("assets.toml", "[[asset]]\nid = \"dev 1\"\nnode = \"cust\"\n"),
        ("keys.toml", &format!("[[key]]\nid = \"k1\"\ntenant = \"cust\"\nsource = \"src\"\nsha256 = \"{}\"\n", "ab".repeat(32))),
        ("templates/vend/t1/template.toml", TEMPLATE),
        ("templates/vend/t1/transform.luau", "function transform(event) return { temperature = event.temperature } end\n"),
        (
            "templates/vend/t1/tests/one.json",
            "{\"description\": \"one\", \"event\": {\"device\": \"dev 1\", \"temperature\": 2}, \"rows\": [{\"temperature\": 2}]}\n",
        ),
    ])
}

pub const TEMPLATE: &str = "id = \"t1\"\ntitle = \"One\"\ntable = \"Climate\"\n\n\
    [decode]\nform = \"json\"\n\n[[fields]]\nname = \"temperature\"\ntype = \"f64\"\nunit = \"Cel\"\n";

pub fn files(parts: &[(&str, &str)]) -> Files {
    parts.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}
