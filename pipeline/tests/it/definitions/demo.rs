//! The demonstration's folder is sound, and all tests of its templates pass through the real stages.

use tidegate_pipeline::definitions::check;
use tidegate_pipeline::demo::content;

#[test]
fn the_embedded_folder_is_sound() {
    let mut files = content::files();
    let (keys, senders) = content::issue_keys().unwrap();
    files.insert("keys.toml".into(), keys);
    let checked = check::check_files(&files).unwrap_or_else(|faults| panic!("{faults}"));
    assert!(checked.tests >= 45, "{} tests", checked.tests);
    assert_eq!(senders.len(), 10);
}

#[test]
fn it_is_written_out_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let first = content::write(folder.path()).unwrap();
    let again = content::write(folder.path()).unwrap();
    assert!(first.iter().zip(&again).all(|(a, b)| a.key.expose() != b.key.expose()), "each start makes other keys");
    let checked = check::check(folder.path()).unwrap_or_else(|faults| panic!("{faults}"));
    let written = std::fs::read_to_string(folder.path().join("keys.toml")).unwrap();
    assert!(again.iter().all(|k| !written.contains(std::str::from_utf8(k.key.expose()).unwrap())));
    assert!(checked.folder.definitions.len() > 200);
}
