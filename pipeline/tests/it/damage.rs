//! A log that is damaged while the server is away: what `verify` finds, and what a start refuses.

use crate::log::segments;
use crate::support::{BINARY, Options, Place};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A server that has written segments as small as settings allow, and has ended.
fn written() -> Place {
    let place = Place::new(
        "[log]\nsegment_bytes = 65536\npartitions = 2\n\n[process]\nepoch_milliseconds = 5\n\n[cut]\nseconds_min = 1\nedge_seconds = 1\n",
    );
    let server = place.start(&Options::default());
    let mut client = server.client();
    for i in 0..60 {
        let note = format!("{i} ").repeat(1_000);
        let events: Vec<String> =
            (0..4).map(|k| format!(r#"{{"device":"d{k}","id":"{i}-{k}","temperature":20,"note":"{note}"}}"#)).collect();
        let answer = client.post("/v1/events", &place.keys[i % 2], "application/x-ndjson", events.join("\n").as_bytes());
        assert_eq!(answer.status, 202);
    }
    server.drain();
    let log = server.log.clone();
    server.stop();
    // Libraries that tell of every step are not heard unless asked for.
    let told = std::fs::read_to_string(log).unwrap();
    assert!(told.contains("\"serving\"") && !told.contains("delta_kernel"), "{told}");
    place
}

fn flip(file: &Path, at: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[at] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

/// What a command says, and the code that it ends with.
fn verify(place: &Place) -> (String, i32) {
    let output = Command::new(BINARY).args(["verify", "--config"]).arg(place.path("tidegate.toml")).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (text, output.status.code().unwrap())
}

/// The byte that a line names.
fn byte(line: &str) -> usize {
    let (_, rest) = line.split_once("byte ").unwrap();
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

#[test]
fn verify_reads_all_that_the_log_holds() {
    let place = written();
    let (report, fine) = place.verify();
    assert!(fine, "{report}");
    let files: Vec<(&str, Vec<PathBuf>)> =
        ["raw", "output", "control"].into_iter().map(|chain| (chain, segments(&place.data().join("log"), chain))).collect();
    // Segments of `commits` too: one at least.
    assert!(report["log_files"].as_u64().unwrap() > files.iter().map(|(_, f)| f.len() as u64).sum());
    assert!(report["log_bytes"].as_u64().unwrap() > 1_000_000, "{report}");
    for (chain, files) in &files {
        if *chain != "control" {
            // Of the three that are damaged none is the last; how many there are depends on how large epochs become.
            assert!(files.len() > 3, "{chain}: {}", files.len());
        }
        for file in files.iter().take(3) {
            let sound = std::fs::read(file).unwrap();
            // A body, most likely, and the header of the first group.
            for at in [sound.len() / 2, 180 + 2] {
                flip(file, at);
                let (text, code) = verify(&place);
                let name = file.file_name().unwrap().to_str().unwrap();
                let found = text.lines().find(|l| l.contains(&format!("{chain}/{name}, byte ")));
                let found = found.unwrap_or_else(|| panic!("{chain} {at}: {text}"));
                // Opening finds it where the file is the last one of its chain, `verify` itself elsewhere.
                let last = files.last() == Some(file);
                assert_eq!((code, found.starts_with("DIFFERENCE")), if last { (2, false) } else { (1, true) }, "{text}");
                assert!(byte(found) <= at, "{at}: {found}");
                std::fs::write(file, &sound).unwrap();
            }
        }
    }
    // Two files at once, one of them with commits: both are named.
    let (_, output) = &files[1];
    let sound: Vec<_> = output.iter().take(2).map(|f| std::fs::read(f).unwrap()).collect();
    output.iter().zip(&sound).for_each(|(f, bytes)| flip(f, bytes.len() / 3));
    let (text, code) = verify(&place);
    assert!(code == 1 && text.contains("output/000000000000.seg") && text.contains("output/000000000001.seg"), "{text}");
    output.iter().zip(&sound).for_each(|(f, bytes)| std::fs::write(f, bytes).unwrap());
    assert_eq!(verify(&place).1, 0);
}

#[test]
fn start_names_what_is_missing_and_cuts_nothing_that_was_acknowledged() {
    let place = written();
    let log = place.data().join("log");
    for chain in ["raw", "output"] {
        let files = segments(&log, chain);
        let refused = |what: &str, parts: &[&str]| {
            let told = place.try_start(&Options::default()).err().unwrap_or_else(|| panic!("{chain}, {what}: it started"));
            let (verified, code) = verify(&place);
            for text in [&told, &verified] {
                assert!(parts.iter().all(|p| text.contains(p)), "{chain}, {what}: {text}");
            }
            assert_ne!(code, 0);
        };
        let name = |file: &PathBuf| format!("{chain}/{}", file.file_name().unwrap().to_str().unwrap());
        // An older one: cut off, or gone.
        let (old, next, last) = (&files[2], &files[3], files.last().unwrap());
        let sound = std::fs::read(old).unwrap();
        std::fs::write(old, &sound[..sound.len() - 100]).unwrap();
        refused("an old segment cut off", &[&name(old), "shorter"]);
        std::fs::remove_file(old).unwrap();
        refused("an old segment gone", &[&name(next), "a file is missing"]);
        std::fs::write(old, &sound).unwrap();
        // The last one: cut off anywhere, or gone.
        let sound = std::fs::read(last).unwrap();
        for length in [sound.len() - 41, sound.len() - 300, sound.len() / 2, 200] {
            std::fs::write(last, &sound[..length]).unwrap();
            refused("the last segment cut off", &[&name(last), "was acknowledged", "bytes of it are lost"]);
            assert_eq!(std::fs::metadata(last).unwrap().len(), length as u64, "nothing was cut");
        }
        std::fs::remove_file(last).unwrap();
        refused("the last segment gone", &[&name(last), "the file is missing"]);
        std::fs::write(last, &sound).unwrap();
        // Half of a write that nobody was told of is another matter.
        let mut torn = sound[..sound.len() - 40].to_vec();
        torn.extend_from_slice(&sound[sound.len() / 2..][..500]);
        std::fs::write(last, torn).unwrap();
    }
    let server = place.start(&Options::default());
    server.drain();
    server.stop();
    let (report, fine) = place.verify();
    assert!(fine && report["received"] == 240, "{report}");
}

#[test]
fn verify_goes_on_behind_a_table_that_cannot_be_read() {
    let place = written();
    let mut found = Vec::new();
    crate::support::files(&place.data().join("tables"), &mut found);
    let gone = found.iter().find(|f| f.extension().is_some_and(|e| e == "parquet")).unwrap();
    std::fs::remove_file(gone).unwrap();
    let (report, fine) = place.verify();
    let differences = report["differences"].as_array().unwrap();
    let file = gone.file_name().unwrap().to_str().unwrap();
    assert!(!fine && differences.len() == 1, "{report}");
    assert!(differences[0].as_str().unwrap().contains("cannot be read") && differences[0].as_str().unwrap().contains(file), "{report}");
    assert!(report["tables"].as_array().unwrap().iter().any(|t| t["rows"].as_u64() > Some(0)), "{report}");
    assert_eq!(verify(&place).1, 1);
}
