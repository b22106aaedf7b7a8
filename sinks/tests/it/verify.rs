//! Reading tables back: counts, cursors, and duplicates where there are some.

use crate::home::Home;
use crate::log::LOG;
use crate::parquet::forty;
use crate::rows::{table, target};
use tidegate_schemas::sink::{Cut, Sink};

fn acme() -> Vec<Cut> {
    forty(0, &table("climate", &[])).into_iter().filter(|c| c.target == target("climate", "acme")).collect()
}

#[tokio::test]
async fn counts_are_by_epoch() {
    for home in Home::each() {
        let sink = home.sink();
        for cut in forty(5, &table("climate", &[])) {
            sink.deliver(cut).await.unwrap();
        }
        let acme = home.held("climate", "acme");
        assert_eq!(acme.rows, (1..=40).map(|epoch| ((LOG, 5, epoch), 4)).collect());
        assert_eq!(acme.cursors, [((LOG, 5), Some(40))].into());
        assert_eq!((acme.files + 1, acme.duplicates), (acme.version + 1, 0));
        let tables: Vec<String> = home.verifier().tables().unwrap().iter().map(|t| format!("{}/{}", t.tenant, t.table)).collect();
        assert_eq!(tables, ["acme/climate", "acme/script_runs", "beta/climate", "beta/script_runs"]);
    }
}

#[tokio::test]
async fn rows_that_are_there_twice_are_found_and_named() {
    for home in Home::each() {
        let sink = home.sink();
        let cuts = acme();
        sink.deliver(cuts[0].clone()).await.unwrap();
        sink.deliver(cuts[1].clone()).await.unwrap();
        // The rows of the first cut under the name of a later one.
        sink.deliver(Cut { first: 50, last: 51, ..cuts[0].clone() }).await.unwrap();
        let found = home.held("climate", "acme");
        assert_eq!((found.duplicates, found.named.len() as u64), (cuts[0].rows_count, cuts[0].rows_count));
        assert_eq!(found.named[0].2.offset, 1_000);
    }
}

#[tokio::test]
async fn a_file_that_is_lost_is_an_error_with_its_name() {
    for home in Home::each() {
        let sink = home.sink();
        let cut = acme().remove(0);
        sink.deliver(cut.clone()).await.unwrap();
        let verifier = home.verifier();
        let found = verifier.tables().unwrap().remove(0);
        let file = format!("acme/climate/date=2026-11-25/{}.parquet", cut.name());
        home.remove(&file).await;
        let error = verifier.table(&found).unwrap_err();
        assert!(error.to_string().starts_with(&format!("reading {}", home.place(&file))), "{error}");
    }
}

#[tokio::test]
async fn a_bit_that_flips_in_any_byte_of_a_file_is_found() {
    for home in Home::each() {
        let sink = home.sink();
        let cut = acme().remove(0);
        sink.deliver(cut.clone()).await.unwrap();
        let found = home.verifier().tables().unwrap().remove(0);
        let file = format!("acme/climate/date=2026-11-25/{}.parquet", cut.name());
        let whole = home.read(&file).await;
        home.verifier().deep(true).table(&found).unwrap();
        let footer = u32::from_le_bytes(whole[whole.len() - 8..whole.len() - 4].try_into().unwrap()) as usize;
        let mut unseen = 0;
        for at in (4..whole.len() - 8 - footer).step_by(97) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            home.write(&file, flipped).await;
            let error = home.verifier().deep(true).table(&found).unwrap_err().to_string();
            assert!(error.contains(&file) && error.contains("it is damaged"), "{error}");
            unseen += u32::from(home.verifier().table(&found).is_ok());
        }
        assert!(unseen > 0, "without a look at every byte some are not seen");
    }
}
