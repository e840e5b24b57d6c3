//! The law of the whole: what is exported hashes to what was registered, whatever it is.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{Export, Kind, Store, finish, folder, judge, set_mode, stocked};

#[derive(Clone, Debug)]
enum Node {
    File { data: Vec<u8>, executable: bool },
    Symlink(OsString),
    Directory(Vec<(OsString, Node)>),
}

/// Any bytes that can be a name, or a link's target.
fn name() -> impl Strategy<Value = OsString> {
    let byte = any::<u8>().prop_filter("NUL and slash", |byte| !matches!(byte, 0 | b'/'));
    let bytes = prop_oneof![prop::collection::vec(byte, 1..12), "[a-z]{1,8}".prop_map(String::into_bytes)];
    bytes.prop_filter("dots", |name| name != b"." && name != b"..").prop_map(OsString::from_vec)
}

fn node() -> impl Strategy<Value = Node> {
    // Short data, so that files are equal at times and `--optimise` finds something to link.
    let data = prop_oneof![
        prop::collection::vec(0_u8..2, 0..3),
        prop::collection::vec(any::<u8>(), 0..5000),
        (0_usize..100_000).prop_map(|size| vec![0; size]),
    ];
    let file = (data, any::<bool>()).prop_map(|(data, executable)| Node::File { data, executable });
    let leaf = prop_oneof![3 => file, 1 => name().prop_map(Node::Symlink)];
    let directory = |inner| prop::collection::vec((name(), inner), 0..12).prop_map(Node::Directory);
    let any = leaf.prop_recursive(4, 60, 12, directory);
    // A store path is at times no directory.
    prop_oneof![1 => any.clone(), 5 => directory(any.boxed())]
}

fn make(node: &Node, at: &Path) {
    match node {
        Node::File { data, executable } => {
            fs_err::write(at, data).unwrap();
            set_mode(at, if *executable { 0o755 } else { 0o644 });
        }
        Node::Symlink(target) => symlink(target, at).unwrap(),
        Node::Directory(entries) => {
            fs_err::create_dir(at).unwrap();
            for (name, node) in entries {
                let place = at.join(name);
                // Two entries of one name: the first stays.
                if place.symlink_metadata().is_err() {
                    make(node, &place);
                }
            }
        }
    }
}

/// Puts random trees into `store`, by Nix itself, and exports each in every one of `modes`.
fn what_is_exported_hashes_to_what_was_registered(store: &Store, place: &Path, modes: &[&str], cases: u32) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 64, ..Config::default() };
    let outcome = TestRunner::new(config).run(&node(), |node| {
        let source = folder();
        make(&node, &source.path().join("tree"));
        let path = finish(store.nix_store().arg("--add").arg(source.path().join("tree")));
        store.optimise();
        let folder = crate::support::folder_in(place);
        for mode in modes {
            let export = Export::new(store).profile(&path).mode(mode).arg("--verify");
            let receipt = export.root(folder.path().join(mode)).exports();
            prop_assert!(receipt.verified);
            judge(store, &[Path::new(&path)], &receipt);
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn any_tree_comes_out_as_it_was_registered() {
    let store = Store::new();
    let folder = folder();
    what_is_exported_hashes_to_what_was_registered(&store, folder.path(), &["auto", "hardlink", "copy"], 12);
}

#[test]
fn any_tree_comes_out_of_a_reflink_as_it_was_registered() {
    let Some(stocked) = stocked(Kind::Btrfs) else { return };
    let folder = stocked.file_system.folder();
    let store = Store::at(folder.path());
    what_is_exported_hashes_to_what_was_registered(&store, folder.path(), &["reflink"], 12);
}
