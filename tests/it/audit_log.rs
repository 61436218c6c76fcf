//! The audit log in another's hands: whatever is done to it is found, and the right row named.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::io::{BufRead, BufReader, Lines};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Stdio};

use jiff::Timestamp;
use provisor::audit::{BadRow, Checkpoint, FOLDER, Notes, Verdict, Verifier, What, files, verify, verify_against};
use provisor::server::Options;
use provisor_providers::books::{AccountId, Books};
use provisor_tests::binary;
use provisor_tests::book::{Book, Engine};
use provisor_tests::forger::{COLUMNS, Log, ROWS, row};
use provisor_tests::house::House;
use provisor_tests::resellers::KeyTraits;
use serde_json::json;

fn engine() -> Engine {
    Engine::of_module(module_path!())
}

#[tokio::test]
async fn every_changed_column_names_its_row() {
    let log = Log::write(engine()).await;
    assert_eq!(log.verdict(&[]), Verdict::Whole { streams: 3, rows: 3 * ROWS.unsigned_abs() });
    for (stream, seq) in [(1, 1), (1, 6), (1, ROWS), (0, 3)] {
        for column in &COLUMNS[2..] {
            let value = match *column {
                "at" | "status" => format!("{column} + 1"),
                "account_id" => "COALESCE(account_id, 0) + 1".to_owned(),
                _ => format!("COALESCE({column}, '') || 'x'"),
            };
            log.forge(&format!("UPDATE audit SET {column} = {value} WHERE stream = {stream} AND seq = {seq}"));
            assert_eq!(log.bad(&[]), Some((stream, seq, What::Changed)), "{column}");
            log.restore();
        }
        let zeros = log.book.bytes(&[0; 32]);
        log.forge(&format!("UPDATE audit SET chain_hash = {zeros} WHERE stream = {stream} AND seq = {seq}"));
        assert_eq!(log.bad(&[]), Some((stream, seq, What::Changed)), "the hash");
        log.restore();
    }
    assert_eq!(log.bad(&[]), None);
}

/// Two rows of a stream at each other's places in the table.
fn swap_places(one: i64, other: i64) -> String {
    let place = |seq| format!("(SELECT id FROM saved WHERE stream = 1 AND seq = {seq})");
    let put = |seq, place: &str| format!("UPDATE audit SET id = {place} WHERE stream = 1 AND seq = {seq};");
    [put(one, "-1"), put(other, &place(one)), put(one, &place(other))].concat()
}

#[tokio::test]
async fn rows_removed_inserted_swapped_or_moved_are_found() {
    let log = Log::write(engine()).await;
    let all = COLUMNS[2..].join(", ");
    let swap = |one: i64, other: i64| {
        format!(
            "UPDATE audit SET seq = -1 WHERE stream = 1 AND seq = {one}; UPDATE audit SET seq = {one} WHERE stream = 1 AND seq = {other};
             UPDATE audit SET seq = {other} WHERE stream = 1 AND seq = -1"
        )
    };
    let insert = format!(
        "UPDATE audit SET seq = -seq - 1 WHERE stream = 1 AND seq >= 5; UPDATE audit SET seq = -seq WHERE seq < 0;
         INSERT INTO audit (stream, seq, {all}, chain_hash) SELECT stream, 5, {all}, chain_hash FROM audit WHERE stream = 1 AND seq = 2"
    );
    let zeros = log.book.bytes(&[0; 32]);
    for (forgery, seq, what) in [
        ("DELETE FROM audit WHERE stream = 1 AND seq = 1".to_owned(), 1, What::Missing),
        ("DELETE FROM audit WHERE stream = 1 AND seq = 7".to_owned(), 7, What::Missing),
        ("DELETE FROM audit WHERE stream = 1 AND seq > 9".to_owned(), 10, What::Missing),
        ("DELETE FROM audit WHERE stream = 1".to_owned(), 1, What::Missing),
        (insert, 5, What::Changed),
        (swap(4, 9), 4, What::Changed),
        (swap(11, 12), 11, What::Changed),
        ("UPDATE chain_heads SET seq = 11 WHERE stream = 1".to_owned(), 11, What::HeadDiffers),
        (format!("UPDATE chain_heads SET chain_hash = {zeros} WHERE stream = 1"), 12, What::HeadDiffers),
        ("DELETE FROM chain_heads WHERE stream = 1".to_owned(), 1, What::PastHead),
        ("UPDATE chain_heads SET seq = 13 WHERE stream = 1".to_owned(), 13, What::Missing),
    ] {
        log.forge(&forgery);
        assert_eq!(log.bad(&[]), Some((1, seq, what)), "{forgery}");
        log.restore();
        assert_eq!(log.bad(&[]), None);
    }
    // A row that was taken from another stream is missing there and too much here.
    log.forge("UPDATE audit SET stream = 9 WHERE stream = 1 AND seq = 3");
    let Verdict::Broken(bad) = log.verdict(&[]) else { panic!("a row moved between streams") };
    assert_eq!(bad, [BadRow { stream: 1, seq: 3, what: What::Missing }, BadRow { stream: 9, seq: 1, what: What::Missing }]);
    log.restore();
    // Whole as it is, a row at another's place would be looked for in vain.
    log.forge(&swap_places(4, 9));
    assert_eq!(log.bad(&[]), Some((1, 5, What::Displaced)));
    log.restore();
    // Behind the last number there is none.
    log.forge(&format!("UPDATE audit SET seq = {} WHERE stream = 1 AND seq > 11", i64::MAX));
    assert_eq!(log.bad(&[]), Some((1, 12, What::Missing)));
}

#[tokio::test]
async fn a_cut_tail_and_a_rewritten_log_are_found_by_checkpoints_alone() {
    let log = Log::write(engine()).await;
    let checkpoints: Vec<Checkpoint> = [4, 8, ROWS].map(|size| log.checkpoint(1, size)).into();
    assert_eq!(log.bad(&checkpoints), None);

    log.forge("DELETE FROM audit WHERE stream = 1 AND seq > 9");
    log.rehash(1, 9);
    assert_eq!(log.bad(&[]), None, "a chain alone does not show a cut tail");
    assert_eq!(log.bad(&checkpoints), Some((1, 10, What::Missing)));
    log.restore();

    for (changed, from, until) in [(1, 1, 4), (6, 5, 8), (8, 5, 8), (9, 9, ROWS), (ROWS, 9, ROWS)] {
        log.forge(&format!("UPDATE audit SET status = 404 WHERE stream = 1 AND seq = {changed}"));
        assert_eq!(log.bad(&[]), Some((1, changed, What::Changed)));
        log.rehash(1, changed);
        assert_eq!(log.bad(&[]), None, "a chain alone does not show a full rewrite");
        assert_eq!(log.bad(&checkpoints), Some((1, from, What::Rewritten { until })), "row {changed}");
        log.restore();
    }
    let whole_stream = "DELETE FROM audit WHERE stream = 1; DELETE FROM chain_heads WHERE stream = 1";
    log.forge(whole_stream);
    assert!(matches!(log.verdict(&[]), Verdict::Whole { streams: 2, .. }));
    assert_eq!(log.bad(&checkpoints), Some((1, 1, What::Missing)));
}

/// Where two threads meet.
#[tokio::test]
async fn a_long_stream_is_joined_where_its_halves_meet() {
    let log = Log::write(engine()).await;
    let append = log.store.transact(|books| (ROWS + 1..=9000).try_for_each(|number| books.audit(&row(1, number))));
    append.await.unwrap();
    log.save();
    assert_eq!(log.verdict(&[]), Verdict::Whole { streams: 3, rows: 9000 + 2 * ROWS.unsigned_abs() });
    let middle = "(SELECT (MIN(id) + MAX(id)) / 2 FROM audit)";
    let last = log.book.number(&format!("SELECT seq FROM audit WHERE id = {middle} AND stream = 1"));
    assert_eq!(last, 4488, "the last of the first half");
    let checkpoints = [4488, 4489, 8500].map(|size| log.checkpoint(1, size));
    let (within, across) = (swap_places(4487, 4488), swap_places(4488, 4489));
    let zeroed = format!("UPDATE audit SET chain_hash = {} WHERE stream = 1 AND seq = 4488", log.book.bytes(&[0; 32]));
    for (forgery, seq, what) in [
        (&*within, 4488, What::Displaced),
        (&*across, 4489, What::Displaced),
        ("UPDATE audit SET status = 1 WHERE stream = 1 AND seq = 4488", 4488, What::Changed),
        ("UPDATE audit SET status = 1 WHERE stream = 1 AND seq = 4489", 4489, What::Changed),
        ("UPDATE audit SET status = 1 WHERE stream = 1 AND seq = 8192", 8192, What::Changed),
        (&zeroed, 4488, What::Changed),
        ("DELETE FROM audit WHERE stream = 1 AND seq = 4488", 4488, What::Missing),
        ("DELETE FROM audit WHERE stream = 1 AND seq = 4489", 4489, What::Missing),
        ("DELETE FROM audit WHERE stream = 1 AND seq >= 4489 AND seq < 8192", 4489, What::Missing),
        ("DELETE FROM audit WHERE stream = 1 AND seq >= 8192", 8192, What::Missing),
        ("DELETE FROM audit WHERE stream = 1 AND seq < 4489", 1, What::Missing),
    ] {
        log.forge(forgery);
        assert_eq!(log.bad(&[]), Some((1, seq, what)), "{forgery}");
        let single = log.store.read(|books| verify_against(books, &checkpoints)).unwrap();
        assert_eq!(single, log.verdict(&checkpoints), "{forgery}");
        log.restore();
    }
    log.forge("UPDATE audit SET status = 1 WHERE stream = 1 AND seq = 4489");
    log.rehash(1, 4489);
    assert_eq!(log.bad(&[]), None);
    assert_eq!(log.bad(&checkpoints), Some((1, 4489, What::Rewritten { until: 4489 })));
}

/// What a server writes while it runs and when it stops.
#[tokio::test]
async fn a_server_signs_what_it_answered_and_a_cut_tail_shows() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(FOLDER).join("test.notes");
    let options = Options { per_ip_per_minute: 0, checkpoints: Some(file.clone()), ..Options::default() };
    let mut house = House::start_on(engine(), options).await;
    let account = house.reseller("10.00").await;
    let key = house.kernelhost_key(account, KeyTraits::default()).await;
    for _ in 0..1001 {
        assert_eq!(key.get("/v1/me").await.status, 200);
    }
    let verifiers = Verifier::all(house.store.vault());
    let read = || {
        let mut notes = Notes::default();
        for file in files(folder.path()).unwrap() {
            notes.read_file(&file, &verifiers).unwrap();
        }
        notes
    };
    while read().notes == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(key.get("/v1/me").await.status, 200);
    house.stop().await;
    let notes = read();
    assert_eq!(
        (notes.torn, notes.refused.len(), notes.checkpoints.last().unwrap().size),
        (0, 0, 1002),
        "stopping signs the last row"
    );
    assert!(notes.checkpoints.iter().any(|point| point.size < 1002), "and some before");
    assert!(matches!(house.store.read(|books| verify_against(books, &notes.checkpoints)).unwrap(), Verdict::Whole { .. }));

    house.book().execute(
        "DELETE FROM audit WHERE seq > 1000;
         UPDATE chain_heads SET seq = 1000, chain_hash = (SELECT chain_hash FROM audit WHERE seq = 1000)",
    );
    assert!(matches!(house.store.read(verify).unwrap(), Verdict::Whole { rows: 1000, .. }));
    let stream = account.0;
    let verdict = house.store.read(|books| verify_against(books, &notes.checkpoints)).unwrap();
    assert_eq!(verdict, Verdict::Broken(vec![BadRow { stream, seq: 1001, what: What::Missing }]));
    assert!(PathBuf::from(&file).exists());
}

/// Rows that come while the log is verified are no fault of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_grows_meanwhile_is_whole() {
    let log = Log::write(engine()).await;
    let store = log.store.clone();
    let writer = tokio::spawn(async move {
        for number in 1..=300 {
            store.transact(move |books| books.audit(&row(number % 4, number))).await.unwrap();
        }
    });
    let mut verified = 0;
    while !writer.is_finished() {
        assert!(matches!(log.verdict(&[]), Verdict::Whole { .. }), "{:?}", log.verdict(&[]));
        verified += 1;
    }
    writer.await.unwrap();
    assert!(verified > 0);
}

/// Old rows go into a file that can be verified, and the chains go on from there.
#[tokio::test]
async fn an_archive_takes_old_rows_out_and_stays_verifiable() {
    let (book, directory) = (Book::new(engine()), tempfile::tempdir().unwrap());
    let data = book.directory();
    let key = binary::key(data, &binary::reseller(data, "100.00"));
    let server = binary::serve(data);
    for _ in 0..5 {
        assert_eq!(key.at(&server).get("/v1/me").await.status, 200);
    }
    server.stop();
    let middle = Timestamp::now().to_string();
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let server = binary::serve(data);
    assert_eq!(key.at(&server).get("/v1/me").await.status, 200);
    let file = directory.path().join("old.jsonl");
    let name = file.to_str().unwrap();
    let archived = binary::run(data, &["audit", "archive", "--before", &middle, "--out", name]);
    // The making of the reseller, its credit and its key, and the five.
    assert_eq!((&archived["rows"], &archived["streams"]), (&json!(8), &json!(1)));
    assert_eq!(key.at(&server).get("/v1/me").await.status, 200);
    let whole = binary::run(data, &["audit", "verify"]);
    assert_eq!((&whole["ok"], &whole["rows"]), (&json!(true), &json!(2)));
    assert!(whole["checkpoints"].as_i64().unwrap() > 0, "older ones harm nothing");
    assert_eq!(binary::run(data, &["audit", "verify-archive", name])["rows"], 8);
    // Nothing is old any more.
    let again = directory.path().join("again.jsonl");
    let again = binary::run(data, &["audit", "archive", "--before", &middle, "--out", again.to_str().unwrap()]);
    assert_eq!(again["rows"], 0);
    server.stop();

    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let swapped = [&[lines[0], lines[1], lines[3], lines[2]], &lines[4..]].concat().join("\n") + "\n";
    let cut = lines[..5].join("\n") + "\n";
    for (forged, seq) in [
        (text.replacen("\"status\":200", "\"status\":404", 2), 1),
        (text.replace("\"seq\":4,", "\"seq\":5,"), 4),
        (swapped, 3),
        (cut, 6),
    ] {
        std::fs::write(&file, forged).unwrap();
        let output = binary::provisor(data).args(["audit", "verify-archive", name]).output().unwrap();
        let bad: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), &bad["seq"]), (Some(1), &json!(seq)), "{bad}");
    }
    std::fs::write(&file, text).unwrap();
    let note = directory.path().join("old.jsonl.note");
    std::fs::write(&note, std::fs::read_to_string(&note).unwrap().replacen(" 8 ", " 7 ", 1)).unwrap();
    let output = binary::provisor(data).args(["audit", "verify-archive", name]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "the note was changed");
}

/// A `provisor audit tail` that runs.
struct Tail {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Tail {
    fn start(house: &House, arguments: &[&str]) -> Self {
        let mut command = binary::provisor(house.directory());
        let mut process = command.args(["audit", "tail"]).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// Stream and path of the next rows.
    fn next(&mut self, count: usize) -> Vec<(i64, String)> {
        let read = |line: std::io::Result<String>| {
            let row: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            (row["stream"].as_i64().unwrap(), row["path"].as_str().unwrap().to_owned())
        };
        self.lines.by_ref().take(count).map(read).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_shows_the_last_rows_of_all_and_then_what_comes() {
    let house = House::start_in(engine()).await;
    let mut keys = Vec::new();
    for _ in 0..2 {
        let account = house.reseller("10.00").await;
        keys.push((account, house.kernelhost_key(account, KeyTraits::default()).await));
    }
    let [(one, one_key), (other, other_key)] = &keys[..] else { panic!("two keys") };
    for (key, path) in [(one_key, "/v1/me"), (other_key, "/v1/products"), (one_key, "/v1/services")] {
        assert_eq!(key.get(path).await.status, 200);
    }
    let row = |account: &AccountId, path: &str| (account.0, path.to_owned());
    let mut last = Tail::start(&house, &["--last", "2"]);
    assert_eq!(last.next(9), [row(other, "/v1/products"), row(one, "/v1/services")]);
    assert!(last.process.wait().unwrap().success());
    let mut last = Tail::start(&house, &["--last", "1", "--stream", &other.0.to_string()]);
    assert_eq!(last.next(9), [row(other, "/v1/products")]);
    assert!(last.process.wait().unwrap().success());

    let mut all = Tail::start(&house, &["--last", "1", "--follow"]);
    let mut ones = Tail::start(&house, &["--last", "1", "--follow", "--stream", &one.0.to_string()]);
    assert_eq!(all.next(1), [row(one, "/v1/services")]);
    assert_eq!(ones.next(1), [row(one, "/v1/services")]);
    let mut expected = Vec::new();
    for number in 1..=3 {
        let path = format!("/v1/orders/{number}");
        other_key.get(&path).await;
        one_key.get(&path).await;
        expected.extend([row(other, &path), row(one, &path)]);
    }
    // Each stream's in their order; of rows of one millisecond either may come first.
    let mut seen = all.next(6);
    for rows in [&mut seen, &mut expected] {
        rows.sort_by_key(|(stream, _)| *stream);
    }
    assert_eq!(seen, expected);
    expected.retain(|(stream, _)| *stream == one.0);
    assert_eq!(ones.next(3), expected);

    // Whoever reads no more ends it.
    drop((all.lines, ones.lines));
    for mut process in [all.process, ones.process] {
        one_key.get("/v1/me").await;
        let ended = tokio::task::spawn_blocking(move || process.wait().unwrap());
        assert!(ended.await.unwrap().success());
    }
}
