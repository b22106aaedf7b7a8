
use std::sync::Arc;
use tidegate_pipeline::definitions::*;
use tidegate_schemas::log::EventLog;
fn rss() -> u64 { std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4 / 1024 }
#[tokio::test]
async fn memory() {
    use std::fmt::Write;
    let mut files = super::definitions::base();
    let mut org = files["organizations.toml"].clone();
    for i in 0..1000 { write!(org, "\n[[organization]]\nid = \"t{i}\"\nkind = \"customer\"\nname = \"T {i}\"\nparent = \"vend\"\n").unwrap(); }
    let mut assets = String::new();
    for i in 0..100_000 { write!(assets, "[[asset]]\nid = \"a81758fffe{i:06x}\"\nnode = \"t{}\"\ntemplate = \"t1\"\nattributes = {{ room = \"1.{i}\" }}\n\n", i % 1000).unwrap(); }
    files.insert("organizations.toml".into(), org);
    files.insert("assets.toml".into(), assets);
    let log = Arc::new(super::definitions::control_log::ControlLog::default());
    eprintln!("start {}", rss());
    let t = std::time::Instant::now();
    let checked = check::check_files(&files).unwrap();
    eprintln!("checked {} MB {:?}", rss(), t.elapsed());
    let log2 = Arc::clone(&log) as Arc<dyn EventLog>;
    let to = Publisher { store: Arc::new(ControlStore::new(Arc::clone(&log2))), follower: Arc::new(CatalogFollower::open(log2).unwrap()), now: || 1 };
    let t = std::time::Instant::now();
    let p = to.publish(checked.folder.definitions, Extent::Whole, "x").await.unwrap();
    eprintln!("published {} in {:?}, rss {}", p.changes.len(), t.elapsed(), rss());
    drop(to); drop(files); drop(p);
    eprintln!("dropped {}", rss());
    let before = rss();
    let t = std::time::Instant::now();
    let f = CatalogFollower::open(log).unwrap();
    eprintln!("opened {:?} in {:?}, {} -> {}", f.current().len(), t.elapsed(), before, rss());
}

#[test]
fn opened() {
    use tidegate_schemas::definition::*; use tidegate_schemas::ids::*; use tidegate_schemas::log::*;
    let log = Arc::new(super::definitions::control_log::ControlLog::default());
    let mut records = vec![];
    let mut push = |d: Definition| { let r = records.len() as u64 + 1; records.push((0, Change { revision: r, definition: d.key(), version: 1, actor: "x".into(), at: 1, before: None, after: Some(d) }.into_record())) };
    let node = |s: &str| NodeId::new(s).unwrap();
    push(Definition::Organization(Organization { id: node("vend"), kind: NodeKind::Vendor, name: "V".into(), parent: None }));
    for i in 0..1000 { push(Definition::Organization(Organization { id: node(&format!("t{i}")), kind: NodeKind::Customer, name: "V".into(), parent: Some(node("vend")) })); }
    for i in 0..100_000 { push(Definition::Asset(Asset { id: format!("a81758fffe{i:06x}"), node: node(&format!("t{}", i % 1000)), template: None, attributes: [("room".to_owned(), format!("1.{i}"))].into() })); }
    drop(log.publish(LogName::Control, records));
    let before = rss();
    let f = CatalogFollower::open(log).unwrap();
    eprintln!("opened {:?}, {} -> {} MB", f.current().len(), before, rss());
}
