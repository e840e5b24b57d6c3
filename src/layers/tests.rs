//! The layer rule on tables and on random closures.

use std::collections::{BTreeSet, HashSet};

use proptest::prelude::*;

use super::*;

/// A closure from rows of name, size and the positions of earlier rows that it refers to. `builds` makes the hash
/// parts and NAR hashes: whoever refers to something rebuilt is rebuilt too.
fn closure(rows: &[(String, u64, Vec<usize>)], rebuilt: Option<usize>) -> Vec<Registration> {
    let mut is_new = vec![false; rows.len()];
    for (i, (_, _, references)) in rows.iter().enumerate() {
        is_new[i] = rebuilt == Some(i) || references.iter().any(|&reference| is_new[reference]);
    }
    let path = |i: usize| {
        let (name, ..) = &rows[i];
        StorePath::parse(&format!("{:0>32}-{name}", i * 2 + usize::from(is_new[i]))).unwrap()
    };
    let registration = |(i, (_, nar_size, references)): (usize, &(String, u64, Vec<usize>))| Registration {
        path: path(i),
        nar_hash: format!("{:0>64x}", i * 2 + usize::from(is_new[i])),
        nar_size: *nar_size,
        deriver: None,
        references: references.iter().map(|&reference| path(reference)).collect(),
    };
    rows.iter().enumerate().map(registration).collect()
}

fn rows(rows: &[(&str, u64, &[usize])]) -> Vec<(String, u64, Vec<usize>)> {
    rows.iter().map(|(name, size, references)| ((*name).to_owned(), *size, references.to_vec())).collect()
}

fn names(layers: &[Vec<StorePath>]) -> Vec<Vec<&str>> {
    layers.iter().map(|layer| layer.iter().map(StorePath::name).collect()).collect()
}

const MIB: u64 = 1 << 20;

/// glibc, then what needs it, and a user environment of all.
fn small_world() -> Vec<(String, u64, Vec<usize>)> {
    rows(&[
        ("glibc-2.36", 30 * MIB, &[0]),
        ("zlib-1.3", MIB / 8, &[0]),
        ("bash-5.2", 3 * MIB, &[0]),
        ("curl-8.0", MIB, &[0, 1]),
        ("python3-3.11.2", 90 * MIB, &[0, 1, 2]),
        ("hello-2.12", MIB / 16, &[0]),
        ("user-environment", 4096, &[0, 1, 2, 3, 4, 5]),
    ])
}

fn root_of(closure: &[Registration]) -> Vec<StorePath> {
    vec![closure.last().unwrap().path.clone()]
}

#[test]
fn with_layers_enough_each_path_has_its_own_and_the_profile_is_last() {
    let closure = closure(&small_world(), None);
    let layers = split(&closure, &root_of(&closure), 60);
    let expected =
        ["glibc-2.36", "zlib-1.3", "bash-5.2", "python3-3.11.2", "curl-8.0", "hello-2.12", "user-environment"];
    assert_eq!(names(&layers), expected.map(|name| vec![name]));
    assert_eq!(split(&closure, &root_of(&closure), 7), layers);
}

#[test]
fn with_few_layers_the_large_and_needed_have_their_own() {
    let closure = closure(&small_world(), None);
    let layers = |most| split(&closure, &root_of(&closure), most);
    assert_eq!(
        names(&layers(4)),
        [
            vec!["glibc-2.36"],
            vec!["python3-3.11.2"],
            vec!["zlib-1.3", "bash-5.2", "curl-8.0", "hello-2.12"],
            vec!["user-environment"],
        ]
    );
    assert_eq!(layers(1).len(), 1);
    assert_eq!(layers(1)[0].len(), 7);
    assert_eq!(layers(0), layers(1));
    assert_eq!(layers(2).len(), 2);
    assert_eq!(names(&layers(2))[1], ["user-environment"]);
}

#[test]
fn a_large_root_is_a_path_like_others_and_leaves_the_last_layer_empty() {
    let closure = closure(&rows(&[("glibc-2.36", 30 * MIB, &[]), ("python3-3.11.2", 90 * MIB, &[0])]), None);
    let layers = split(&closure, &root_of(&closure), 60);
    assert_eq!(names(&layers), [vec!["glibc-2.36"], vec!["python3-3.11.2"], vec![]]);
    assert_eq!(split(&[], &[], 60), [Vec::<StorePath>::new()]);
}

#[test]
fn shared_layers_come_by_powers_of_two() {
    for (units, room, expected) in [
        (0, 59, 0),
        (59, 59, 0),
        (60, 59, 1),
        (64, 59, 1),
        (65, 59, 2),
        (71, 59, 4),
        (107, 59, 16),
        (1000, 59, 30),
        (5, 1, 1),
        (5, 2, 1),
        (5, 0, 0),
    ] {
        assert_eq!(shared_layers(units, room), expected, "{units} units, room for {room}");
    }
}

fn world() -> impl Strategy<Value = Vec<(String, u64, Vec<usize>)>> {
    let row =
        ("[a-c]{1,2}(-[0-9]\\.[0-9])?(-lib)?", 0_u32..28, prop::collection::vec(any::<prop::sample::Index>(), 0..4));
    prop::collection::vec(row, 1..90).prop_map(|rows| {
        let row = |(i, (name, magnitude, references)): (usize, (String, u32, Vec<prop::sample::Index>))| {
            let references: BTreeSet<_> = references.iter().map(|reference| reference.index(i + 1)).collect();
            (name, (1 << magnitude) + i as u64, references.into_iter().collect())
        };
        rows.into_iter().enumerate().map(row).collect()
    })
}

proptest! {
    #[test]
    fn every_path_is_in_one_layer_and_there_are_not_too_many(
        world in world(), most in 1_usize..70, twins in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let mut closure = closure(&world, None);
        for pair in twins.chunks_exact(2) {
            let (one, other) = (pair[0].index(closure.len()), pair[1].index(closure.len()));
            (closure[one].nar_hash, closure[one].nar_size) = (closure[other].nar_hash.clone(), closure[other].nar_size);
        }
        let roots = root_of(&closure);
        let layers = split(&closure, &roots, most);
        prop_assert!(layers.len() <= most);
        let all: Vec<_> = layers.concat();
        prop_assert_eq!(all.len(), closure.len());
        prop_assert_eq!(all.iter().collect::<HashSet<_>>().len(), closure.len());
        let layer_of = |path: &StorePath| layers.iter().position(|layer| layer.contains(path));
        for one in &closure {
            for other in closure.iter().filter(|other| other.nar_hash == one.nar_hash) {
                prop_assert_eq!(layer_of(&one.path), layer_of(&other.path));
            }
        }
        // Whatever the order in which Nix names them.
        closure.reverse();
        prop_assert_eq!(split(&closure, &roots, most), layers);
    }

    #[test]
    fn a_rebuilt_package_changes_the_layers_of_what_needs_it_and_no_other(
        mut world in world(), most in 1_usize..70, rebuilt in any::<prop::sample::Index>(),
    ) {
        // Two paths of one name and size are told apart by their hashes alone.
        for (i, (name, ..)) in world.iter_mut().enumerate() {
            name.insert_str(0, &format!("p{i}x"));
        }
        let before = closure(&world, None);
        let after = closure(&world, Some(rebuilt.index(world.len())));
        let (before, after) =
            (split(&before, &root_of(&before), most), split(&after, &root_of(&after), most));
        prop_assert_eq!(names(&before), names(&after));
        let kept: BTreeSet<_> = before.concat().into_iter().filter(|path| after.concat().contains(path)).collect();
        for (before, after) in before.iter().zip(&after) {
            prop_assert_eq!(before == after, before.iter().all(|path| kept.contains(path)));
        }
    }

    #[test]
    fn a_new_leaf_leaves_nearly_all_layers_as_they_are(world in world(), most in 4_usize..70) {
        let before = closure(&world, None);
        let mut more = world.clone();
        more.push(("new-1.0".to_owned(), 5000, vec![0]));
        let after = closure(&more, None);
        let roots = root_of(&before);
        let (before, after) = (split(&before, &roots, most), split(&after, &roots, most));
        // One more unit may double the shared layers. Apart from that, the new leaf changes the layer that it gets or
        // joins, and the shared layer of a unit that loses its own. What it refers to is needed by one more: it may get
        // a layer of its own, leave a shared one, and displace one unit in turn.
        let shared = |layers: &[Vec<StorePath>]| {
            let units = layers.concat().len() - layers.last().unwrap().len();
            shared_layers(units, most - 1)
        };
        if shared(&before) == shared(&after) {
            let changed = after.iter().filter(|layer| !before.contains(layer)).count();
            prop_assert!(changed <= 5, "{changed} layers changed");
        }
    }
}
