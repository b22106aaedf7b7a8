//! What changes between two states, and how changes become a catalog that everybody shares.

use super::control_log::ControlLog;
use super::{TEMPLATE, base};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidegate_pipeline::definitions::catalogs::CatalogsError;
use tidegate_pipeline::definitions::folder::{Files, table_id};
use tidegate_pipeline::definitions::publish::PublishError;
use tidegate_pipeline::definitions::socket::{self, Allowed, ApplyError};
use tidegate_pipeline::definitions::{CatalogFollower, ControlStore, Extent, Folder, Known, Published, Publisher, diff};
use tidegate_schemas::catalog::Catalog;
use tidegate_schemas::definition::*;
use tidegate_schemas::ids::*;
use tidegate_schemas::log::{EventLog, LogName, Record};
use tidegate_schemas::sink::CutParameters;
use tidegate_schemas::store::{DefinitionStore, StoreError};
use tidegate_schemas::table::{Column, Field, FieldType, Table};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

fn publisher(log: &Arc<ControlLog>) -> Publisher {
    let log = Arc::clone(log) as Arc<dyn EventLog>;
    Publisher { store: Arc::new(ControlStore::new(Arc::clone(&log))), follower: Arc::new(CatalogFollower::open(log).unwrap()), now: || 42 }
}

async fn publish(to: &Publisher, files: &Files) -> Published {
    let wanted = Folder::parse(files).unwrap_or_else(|f| panic!("{f}")).definitions;
    to.publish(wanted, Extent::Whole, "test").await.unwrap()
}

fn with(mut files: Files, path: &str, text: &str) -> Files {
    files.insert(path.to_owned(), text.to_owned());
    files
}

/// The changes of an answer as words.
fn words(published: &Published) -> Vec<String> {
    published.changes.iter().map(|c| format!("{:?} {} {} v{}", c.action, c.definition.kind, c.definition.id, c.version)).collect()
}

#[tokio::test]
async fn a_second_time_changes_nothing() {
    let log = Arc::new(ControlLog::default());
    let to = publisher(&log);
    let first = publish(&to, &base()).await;
    assert_eq!(first.revision, 7);
    let order: Vec<&str> = first.changes.iter().map(|c| c.definition.kind.as_str()).collect();
    assert_eq!(order, ["organization", "organization", "table", "template", "source", "asset", "key"]);
    let second = publish(&to, &base()).await;
    assert_eq!((second.revision, second.changes.len(), second.unchanged), (7, 0, 7));
    assert_eq!(log.len(), 7);
}

#[tokio::test]
async fn what_is_gone_is_removed_and_versions_go_on() {
    let to = publisher(&Arc::new(ControlLog::default()));
    publish(&to, &base()).await;
    let mut less = base();
    for file in ["assets.toml", "keys.toml", "sources.toml"] {
        less.remove(file);
    }
    less.retain(|path, _| !path.starts_with("templates/"));
    let gone = publish(&to, &less).await;
    assert_eq!(words(&gone), ["Removed key k1 v2", "Removed asset dev 1 v2", "Removed source src v2", "Removed template t1 v2"]);
    let back = publish(&to, &base()).await;
    // The table never went.
    assert_eq!(words(&back), ["Added template t1 v3", "Added source src v3", "Added asset dev 1 v3", "Added key k1 v3"]);
    let none = publish(&to, &Files::new()).await;
    assert_eq!(words(&none)[4..], ["Removed organization cust v2", "Removed organization vend v2"]);
    publish(&to, &base()).await;
    assert!(to.follower.current().key("k1").is_some());
}

#[tokio::test]
async fn an_asset_that_moves_leaves_its_place_first() {
    let to = publisher(&Arc::new(ControlLog::default()));
    let site =
        format!("{}\n[[organization]]\nid = \"site\"\nkind = \"site\"\nname = \"S\"\nparent = \"cust\"\n", base()["organizations.toml"]);
    publish(&to, &with(base(), "organizations.toml", &site)).await;
    let moved = with(with(base(), "organizations.toml", &site), "assets.toml", "[[asset]]\nid = \"dev 1\"\nnode = \"site\"\n");
    let published = publish(&to, &moved).await;
    assert_eq!(words(&published), ["Moved asset dev 1 v1"]);
    assert_eq!((published.changes[0].moved_from.as_deref(), &*published.changes[0].definition.owner), (Some("cust"), "site"));
    let tenant = TenantId::new("cust").unwrap();
    assert_eq!(to.follower.current().asset(&tenant, "dev 1").unwrap().asset.node.as_str(), "site");
}

#[tokio::test]
async fn nothing_goes_to_another_tenant_unasked() {
    let to = publisher(&Arc::new(ControlLog::default()));
    publish(&to, &base()).await;
    // The other customer comes with the same folder.
    let other = format!(
        "{}\n[[organization]]\nid = \"other\"\nkind = \"customer\"\nname = \"O\"\nparent = \"vend\"\n",
        base()["organizations.toml"]
    );
    let moved = with(with(base(), "organizations.toml", &other), "assets.toml", "[[asset]]\nid = \"dev 1\"\nnode = \"other\"\n");
    let wanted = || Folder::parse(&moved).unwrap_or_else(|f| panic!("{f}")).definitions;
    let error = to.apply(wanted(), false, "test").await.unwrap_err();
    let PublishError::Refused(refusals) = error else { panic!("{error}") };
    let told: Vec<String> = refusals.iter().map(|r| format!("{}: {}", r.definition.id, r.cause)).collect();
    assert_eq!(told, ["dev 1: it would move from tenant cust to tenant other; apply with --between-tenants where that is meant"]);
    let cust = TenantId::new("cust").unwrap();
    assert!(to.follower.current().asset(&cust, "dev 1").is_some());
    let published = to.apply(wanted(), true, "test").await.unwrap();
    assert_eq!(words(&published), ["Added organization other v1", "Moved asset dev 1 v1"]);
    assert!(to.follower.current().asset(&cust, "dev 1").is_none());
}

#[tokio::test]
async fn a_table_only_gains_fields_at_its_end() {
    let to = publisher(&Arc::new(ControlLog::default()));
    let path = "templates/vend/t1/template.toml";
    let field = |name: &str, kind: &str| format!("\n[[fields]]\nname = \"{name}\"\ntype = \"{kind}\"\n");
    let columns = || {
        let id = table_id(&NodeId::new("vend").unwrap(), "Climate").unwrap();
        let catalog = to.follower.current();
        let table = catalog.table(&id).unwrap();
        assert_eq!(table.name, "Climate");
        table.fields.iter().map(|c| c.name.clone()).collect::<Vec<_>>()
    };
    publish(&to, &base()).await;
    publish(&to, &with(base(), path, &format!("{TEMPLATE}{}", field("zeta", "i64")))).await;
    assert_eq!(columns(), ["temperature", "zeta"]);
    // Another template of the owner names the table, and is read before; the first loses a field.
    let other = "id = \"a0\"\ntitle = \"A\"\ntable = \"Climate\"\n".to_owned() + &field("alpha", "text");
    let both = with(with(base(), path, TEMPLATE), "templates/vend/a0/template.toml", &other);
    let published = publish(&to, &both).await;
    assert_eq!(columns(), ["temperature", "zeta", "alpha"]);
    assert!(words(&published).contains(&"Changed table Climate v3".to_owned()), "{:?}", words(&published));
    // A field that the table has kept cannot come back as another type.
    let changed = Folder::parse(&with(base(), path, &format!("{TEMPLATE}{}", field("zeta", "text")))).unwrap().definitions;
    let error = to.publish(changed, Extent::Whole, "test").await.unwrap_err();
    let PublishError::Refused(refusals) = error else { panic!("{error}") };
    assert_eq!(refusals.len(), 1);
    let cause = refusals[0].cause.to_string();
    assert!(cause.starts_with("field \"zeta\" is i64 without unit in the table and text"), "{cause}");
    assert_eq!(columns(), ["temperature", "zeta", "alpha"]);
}

#[tokio::test]
async fn parts_leave_the_rest_alone() {
    let to = publisher(&Arc::new(ControlLog::default()));
    publish(&to, &base()).await;
    let cut = CutParameters { rows: 7, ..CutParameters::default() };
    let published = to.publish(vec![Definition::Cut(cut)], Extent::Part, "configuration").await.unwrap();
    assert_eq!(words(&published), ["Added cut cut v1"]);
    assert_eq!(publish(&to, &base()).await.changes.len(), 0, "a folder does not take the cut away");
    assert_eq!(to.follower.current().cut(), cut);
    to.follower.inspect(|catalog, known| {
        assert_eq!(catalog.revision(), 8);
        assert_eq!(known.keys().count(), 8);
    });
}

#[tokio::test]
async fn the_store_is_gapless_and_reads_from_anywhere() {
    let log = Arc::new(ControlLog::default());
    let store = ControlStore::new(Arc::clone(&log) as Arc<dyn EventLog>);
    let change = |revision: u64| {
        let node =
            Organization { id: NodeId::new(&format!("v{revision}")).unwrap(), kind: NodeKind::Vendor, name: "V".into(), parent: None };
        let after = Definition::Organization(node);
        Change { revision, definition: after.key(), version: 1, actor: "a".into(), at: 1, before: None, after: Some(after) }
    };
    store.append((1..=3_000).map(change).collect()).await.unwrap();
    let taken = store.append(vec![change(3_000)]).await.unwrap_err();
    assert!(matches!(taken, StoreError::Taken(3_000)), "{taken}");
    assert!(store.append(vec![change(3_002)]).await.is_err());
    assert!(store.append(vec![change(3_001), change(3_003)]).await.is_err());
    // Another store on the same log, as after a start.
    let again = ControlStore::new(Arc::clone(&log) as Arc<dyn EventLog>);
    for (after, max, first, last) in [(0, 2, 1, 2), (1_023, 3, 1_024, 1_026), (1_024, 1, 1_025, 1_025), (2_999, 10, 3_000, 3_000)] {
        let found = again.changes(after, max).await.unwrap();
        assert_eq!((found[0].revision, found.last().unwrap().revision), (first, last));
    }
    assert!(again.changes(3_000, 10).await.unwrap().is_empty());
    again.append(vec![change(3_001)]).await.unwrap();
    let follower = CatalogFollower::open(log).unwrap();
    assert_eq!(follower.current().revision(), 3_001);
    for revision in [0, 1, 1_500, 3_001] {
        assert_eq!(follower.at(revision).unwrap().len() as u64, revision);
    }
    let short = follower.at(3_002).unwrap_err();
    assert!(matches!(short, CatalogsError::Short { asked: 3_002, newest: 3_001 }), "{short}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn publishers_at_once_lose_nothing() {
    let log = Arc::new(ControlLog::default());
    let mut tasks = tokio::task::JoinSet::new();
    for publisher in 0..4 {
        // A store of its own each, as in processes of their own.
        let store = ControlStore::new(Arc::clone(&log) as Arc<dyn EventLog>);
        tasks.spawn(async move {
            let mut revisions = Vec::new();
            for i in 0..25 {
                loop {
                    let newest = store.changes(0, usize::MAX).await.unwrap().last().map_or(0, |c| c.revision);
                    let changes: Vec<Change> = (0..2)
                        .map(|part| {
                            let id = NodeId::new(&format!("p{publisher}-{i}-{part}")).unwrap();
                            let node = Organization { id, kind: NodeKind::Vendor, name: "V".into(), parent: None };
                            let after = Definition::Organization(node);
                            let revision = newest + 1 + part;
                            Change {
                                revision,
                                definition: after.key(),
                                version: 1,
                                actor: "a".into(),
                                at: 1,
                                before: None,
                                after: Some(after),
                            }
                        })
                        .collect();
                    match store.append(changes).await {
                        Ok(()) => break revisions.push(newest + 1),
                        Err(StoreError::Taken(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            revisions
        });
    }
    let mut told: Vec<u64> = Vec::new();
    while let Some(revisions) = tasks.join_next().await {
        told.extend(revisions.unwrap());
    }
    told.sort_unstable();
    assert_eq!(told, (0..100).map(|i| 2 * i + 1).collect::<Vec<_>>(), "each was told of a place of its own");
    let catalog = CatalogFollower::open(log).unwrap().current();
    assert_eq!((catalog.revision(), catalog.len()), (200, 200));
}

#[tokio::test]
async fn a_follower_keeps_up_and_names_what_is_damaged() {
    let log = Arc::new(ControlLog::default());
    let to = publisher(&log);
    let other = Arc::new(CatalogFollower::open(Arc::clone(&log) as Arc<dyn EventLog>).unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let mut newer = other.subscribe();
    let following = {
        let (other, stop) = (Arc::clone(&other), Arc::clone(&stop));
        std::thread::spawn(move || other.follow(&stop))
    };
    let revision = publish(&to, &base()).await.revision;
    newer.wait_for(|catalog| catalog.revision() == revision).await.unwrap();
    assert_eq!(other.current().revision(), revision);
    stop.store(true, Ordering::Relaxed);
    following.join().unwrap().unwrap();

    let record = Record { value: "{}".into(), ..Record::default() };
    log.publish(LogName::Control, vec![(0, record)]).await.unwrap();
    let damaged = other.catch_up().unwrap_err();
    assert!(damaged.to_string().starts_with("record 21 of control is unreadable"), "{damaged}");
    assert_eq!(other.current().revision(), revision, "the last good catalog stays");
    let opened = CatalogFollower::open(log).err().unwrap();
    assert!(matches!(opened, CatalogsError::Change { offset: 21, .. }), "{opened}");
}

fn write(folder: &Path, files: &Files) {
    for (name, text) in files {
        let file = folder.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
}

async fn apply(folder: &Path, socket: &Path) -> Result<Published, ApplyError> {
    let (folder, socket) = (folder.to_owned(), socket.to_owned());
    tokio::task::spawn_blocking(move || socket::apply(&folder, &socket, Allowed::default())).await.unwrap()
}

#[tokio::test]
async fn folders_are_applied_over_the_socket() {
    let place = tempfile::tempdir().unwrap();
    let (folder, socket) = (place.path().join("definitions"), place.path().join("control.sock"));
    write(&folder, &base());
    std::fs::write(folder.join("README.md"), "# Ours").unwrap();
    std::fs::write(folder.join(".hidden"), "x").unwrap();
    let nobody = apply(&folder, &socket).await.unwrap_err();
    assert!(nobody.to_string().contains("is tidegate running on this data folder"), "{nobody}");

    let log = Arc::new(ControlLog::default());
    let to = publisher(&log);
    let stop = CancellationToken::new();
    // A file left over from a crash is no obstacle.
    std::fs::write(&socket, "").unwrap();
    let mut server = JoinSet::new();
    server.spawn(socket::serve(socket::bind(&socket).unwrap(), to.clone(), log, stop.clone()));
    while apply(&folder, &socket).await.is_err() {
        tokio::task::yield_now().await;
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&socket).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(apply(&folder, &socket).await.unwrap(), Published { revision: 7, changes: vec![], unchanged: 7 });

    // What is wrong in itself is never sent; what does not fit the catalog is told with the place in the folder.
    std::fs::write(folder.join("assets.toml"), "[[asset]]\nid = \"a\"\nnode = \"nobody\"\n").unwrap();
    let wrong = apply(&folder, &socket).await.unwrap_err().to_string();
    assert_eq!(wrong, "assets.toml:2:6: asset a refers to organization nobody, which is not there; define it, or correct the name");
    write(&folder, &base());
    let organizations = base()["organizations.toml"].replace("\"vend\"", "\"vend2\"");
    std::fs::write(folder.join("organizations.toml"), organizations).unwrap();
    std::fs::rename(folder.join("templates/vend"), folder.join("templates/vend2")).unwrap();
    let refused = apply(&folder, &socket).await.unwrap_err().to_string();
    assert!(refused.starts_with("organizations.toml:7:6: organization cust: a node keeps its kind and its place"), "{refused}");
    assert_eq!(to.follower.current().revision(), 7);

    // Whatever else is sent is answered, and the next one is served.
    let mut garbage = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let answer = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        garbage.write_all(b"{\"apply\": 3}").unwrap();
        garbage.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        garbage.read_to_string(&mut answer).unwrap();
        answer
    });
    assert!(answer.await.unwrap().starts_with("{\"failed\":{\"detail\":\"the request is unreadable"));
    write(&folder, &base());
    std::fs::remove_dir_all(folder.join("templates/vend2")).unwrap();
    let published = apply(&folder, &socket).await.unwrap();
    assert_eq!(published.changes.len(), 0);
    stop.cancel();
    server.join_next().await.unwrap().unwrap();
    assert!(!socket.exists());
}

/// A small world: which nodes, templates with their fields, sources and assets there are.
#[derive(Clone, Debug)]
struct World {
    customers: [bool; 2],
    site: bool,
    /// Per template: its table, and which of the fields it has.
    templates: [Option<(bool, [bool; 4])>; 2],
    source: Option<(bool, bool)>,
    /// Per asset: on the site, and whether it names a template.
    assets: [Option<(bool, bool)>; 3],
    key: bool,
}

fn world() -> impl Strategy<Value = World> {
    let templates = prop::array::uniform2(prop::option::of((any::<bool>(), prop::array::uniform4(any::<bool>()))));
    let assets = prop::array::uniform3(prop::option::of((any::<bool>(), any::<bool>())));
    let source = prop::option::of((any::<bool>(), any::<bool>()));
    (prop::array::uniform2(any::<bool>()), any::<bool>(), templates, source, assets, any::<bool>())
        .prop_map(|(customers, site, templates, source, assets, key)| World { customers, site, templates, source, assets, key })
}

impl World {
    fn definitions(&self) -> Vec<Definition> {
        let node = |id: &str| NodeId::new(id).unwrap();
        let organization = |id: &str, kind, parent: Option<&str>| {
            Definition::Organization(Organization { id: node(id), kind, name: id.into(), parent: parent.map(node) })
        };
        let mut out = vec![organization("v", NodeKind::Vendor, None)];
        for (i, there) in self.customers.iter().enumerate() {
            out.extend(there.then(|| organization(&format!("c{i}"), NodeKind::Customer, Some("v"))));
        }
        let site = self.customers[0] && self.site;
        out.extend(site.then(|| organization("a-site", NodeKind::Site, Some("c0"))));
        let mut tables: BTreeMap<String, Table> = BTreeMap::new();
        for (i, template) in self.templates.iter().enumerate() {
            let Some((second, has)) = template else { continue };
            let name = if *second { "B" } else { "A" };
            let id = table_id(&node("v"), name).unwrap();
            let kinds = [FieldType::F64, FieldType::I64, FieldType::Text, FieldType::Bool];
            let fields: Vec<Field> = (0..4)
                .filter(|f| has[*f])
                .map(|f| Field { name: format!("f{f}"), kind: kinds[f], unit: None, required: false, min: None, max: None })
                .collect();
            let empty = Table { id: id.clone(), owner: node("v"), name: name.into(), fields: Vec::<Column>::new() };
            let table = tables.entry(name.into()).or_insert(empty);
            *table = table.with(&fields).unwrap();
            out.push(Definition::Template(Box::new(Template {
                id: TemplateId::new(&format!("t{i}")).unwrap(),
                owner: node("v"),
                title: "T".into(),
                table: id,
                payload: None,
                inputs: vec![],
                fields,
                limits: ScriptLimits::default(),
                decode: None,
                validate: None,
                transform: None,
            })));
        }
        out.extend(tables.into_values().map(Definition::Table));
        if !self.customers[0] {
            return out;
        }
        let place = |on_site: bool| node(if on_site && site { "a-site" } else { "c0" });
        let named = |named: bool| (named && self.templates[0].is_some()).then(|| "t0".to_owned());
        if let Some((on_site, template)) = self.source {
            let asset = Place::Pointer("/a".into());
            let (id, node, template) = (SourceId::new("s").unwrap(), place(on_site), named(template));
            let (template_at, event_id, occurred_at, event_type, meta) = (None, None, None, None, vec![]);
            out.push(Definition::Source(Box::new(Source {
                id,
                node,
                template,
                template_at,
                asset,
                event_id,
                occurred_at,
                event_type,
                meta,
            })));
            if self.key {
                let (id, tenant, source) = (CredentialId::new("k").unwrap(), TenantId::new("c0").unwrap(), SourceId::new("s").unwrap());
                out.push(Definition::Key(ApiKey { id, tenant, source, sha256: "00".repeat(32), expires_at: None, assets: None }));
            }
        }
        for (i, asset) in self.assets.iter().enumerate() {
            if let Some((on_site, template)) = asset {
                let (id, node, template) = (format!("asset {i}"), place(*on_site), named(*template));
                out.push(Definition::Asset(Asset { id, node, template, attributes: BTreeMap::new() }));
            }
        }
        out
    }
}

fn fold(catalog: &mut Catalog, known: &mut Known, wanted: &[Definition]) -> usize {
    let changes = diff(catalog, known, wanted, Extent::Whole, "test", 0).unwrap();
    for change in &changes {
        catalog.apply(change).unwrap();
        known.apply(change);
    }
    changes.len()
}

/// All that is there but tables, and the tables by name.
type There = (BTreeMap<DefinitionKey, Definition>, BTreeMap<String, Table>);

fn there(known: &Known) -> There {
    let mut out = There::default();
    for key in known.keys() {
        match known.get(key).unwrap() {
            Definition::Table(table) => drop(out.1.insert(table.name.clone(), table)),
            other => drop(out.0.insert(key.clone(), other)),
        }
    }
    out
}

proptest! {
    #[test]
    fn states_one_after_the_other_end_as_the_last_alone(worlds in prop::collection::vec(world(), 1..6)) {
        let (mut catalog, mut known) = (Catalog::default(), Known::default());
        let mut tables = BTreeMap::new();
        for world in &worlds {
            fold(&mut catalog, &mut known, &world.definitions());
            prop_assert_eq!(fold(&mut catalog, &mut known, &world.definitions()), 0, "a second time changes nothing");
            for (name, table) in there(&known).1 {
                let before: Option<Table> = tables.insert(name, table.clone());
                prop_assert!(before.is_none_or(|b| table.fields.starts_with(&b.fields)), "fields come at the end only");
            }
        }
        let (mut alone, mut known_alone) = (Catalog::default(), Known::default());
        fold(&mut alone, &mut known_alone, &worlds.last().unwrap().definitions());
        let ((rest, tables), (rest_alone, tables_alone)) = (there(&known), there(&known_alone));
        prop_assert_eq!(&rest, &rest_alone);
        for (name, table) in &tables_alone {
            prop_assert!(table.fields.iter().all(|f| tables[name].fields.contains(f)));
        }
        prop_assert_eq!(catalog.len() - tables.len(), alone.len() - tables_alone.len());
        let tenant = TenantId::new("c0").unwrap();
        for i in 0..3 {
            let id = format!("asset {i}");
            prop_assert_eq!(catalog.asset(&tenant, &id), alone.asset(&tenant, &id));
        }
    }
}
