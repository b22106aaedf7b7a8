//! JSONTestSuite as bodies: `y_` is taken, `n_` refused, `i_` may go either way; nothing is ever a 500.

use crate::support::*;
use std::path::PathBuf;

#[tokio::test(flavor = "multi_thread")]
async fn hostile_documents_are_answers_and_never_faults() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/jsontestsuite");
    let Ok(files) = std::fs::read_dir(&folder) else {
        assert_ne!(std::env::var("TIDEGATE_REQUIRE_DATA").as_deref(), Ok("1"), "{} is missing", folder.display());
        eprintln!("skipped: {} is not here; the scanner's own tests hold the embedded cases", folder.display());
        return;
    };
    let server = start().await;
    let mut seen = 0;
    for file in files {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !["y_", "n_", "i_"].iter().any(|p| name.starts_with(p)) {
            continue;
        }
        seen += 1;
        let body = std::fs::read(&path).unwrap();
        let no_events = String::from_utf8_lossy(&body).split_whitespace().collect::<String>() == "[]";
        for format in [JSON, LINES] {
            let answer = post_as(&server, "open", format, &body).await;
            let stored = server.log.envelopes();
            assert_eq!(stored.len(), usize::from(answer.status == 202), "{name}");
            match (&name[..2], format) {
                ("y_", JSON) => assert_eq!(answer.status, if no_events { 400 } else { 202 }, "{name}: {answer:?}"),
                ("n_", JSON) => assert_eq!(answer.status, 400, "{name}: {answer:?}"),
                // By lines, parts of a document may be documents.
                _ => assert!(matches!(answer.status, 202 | 400), "{name}: {answer:?}"),
            }
            for (envelope, value) in stored {
                for span in &envelope.events {
                    let event = span.of(&value);
                    assert!(serde_json::from_slice::<&serde_json::value::RawValue>(&event).is_ok(), "{name}: {event:?}");
                }
            }
        }
    }
    assert_eq!(seen, 318);
}
