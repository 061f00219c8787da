//! `THIRD_PARTY.md` names exactly what is in the library.

use std::collections::BTreeSet;
use std::process::Command;

#[test]
fn third_party_md_is_up_to_date() {
    let arguments =
        ["tree", "--locked", "--edges", "normal", "--features", "python", "--target", "all", "--prefix", "none"];
    let done = Command::new(env!("CARGO")).args(arguments).output().expect("cargo runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    // A line is `name v1.2.3 (what it is)`; the first is this crate.
    let tree = String::from_utf8(done.stdout).expect("names are UTF-8");
    let crates: BTreeSet<String> = tree
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some(format!("{} {}", words.next()?, words.next()?.strip_prefix('v')?))
        })
        .collect();

    // A row is `| name | 1.2.3 | licence |`.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/THIRD_PARTY.md");
    let text = std::fs::read_to_string(path).expect("THIRD_PARTY.md can be read");
    let rows = text.lines().skip_while(|line| *line != "| crate | version | licence |").skip(2);
    let named: BTreeSet<String> = rows
        .map_while(|row| Some(row.strip_prefix("| ")?.split(" | ").take(2).collect::<Vec<_>>().join(" ")))
        .collect();
    assert_eq!(named, crates, "THIRD_PARTY.md is not what Cargo.lock holds: run `make third-party`");
}
