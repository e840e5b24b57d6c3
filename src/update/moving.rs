//! Whether a moving tag may go from one image to another.
//! It must never let a tag go to an older commit, nor anywhere when that cannot be told.

use std::cmp::Ordering;

use crate::channel::{Release, Update};
use crate::oci::Digest;
use crate::oci::labels;
use crate::registry::Labels;

/// What a tag points to, with what tells its age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointed {
    /// Of the index.
    pub digest: Digest,
    /// The commit.
    pub revision: Option<String>,
    /// The release number.
    pub release: Option<String>,
    /// The time of the commit.
    pub created: Option<String>,
}

impl Pointed {
    /// An index with the labels of one of its images.
    pub fn new(digest: Digest, of: &Labels) -> Self {
        let label = |name: &str| labels::value(of, name).map(ToOwned::to_owned);
        Self {
            digest,
            revision: label(labels::REVISION),
            release: label(labels::RELEASE),
            created: label(labels::CREATED),
        }
    }
}

/// May the tag move?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It points nowhere, to another image of the same commit, or to an older commit.
    Move,
    /// It is where it shall be.
    Same,
    /// It points to a newer commit.
    Newer,
    /// Nothing says which of the two is older.
    Unknown,
}

/// Whether a tag that points to `from` may go to `to`. `updates` are the channel's, oldest first.
///
/// Three things tell which is older: the time of the commit, the release number, and the place among
/// `updates`. One that says "older" is enough to stay; without one that says anything there is no answer.
pub fn verdict(to: &Pointed, from: Option<&Pointed>, updates: &[Update]) -> Verdict {
    let Some(from) = from else { return Verdict::Move };
    if from.digest == to.digest {
        return Verdict::Same;
    }
    if to.revision.is_some() && to.revision == from.revision {
        return Verdict::Move;
    }
    let both = |of: fn(&Pointed) -> Option<&str>| Some((of(to)?, of(from)?));
    let times = both(|image| image.created.as_deref().filter(|time| is_time(time)));
    let numbers = both(|image| image.release.as_deref());
    let place = |image: &Pointed| {
        let revision = image.revision.as_deref()?;
        updates.iter().position(|update| update.commit.as_str() == revision)
    };
    let evidence = [
        times.map(|(to, from)| to.cmp(from)),
        numbers.and_then(|(to, from)| Release::compare_numbers(to, from)),
        place(to).zip(place(from)).map(|(to, from)| to.cmp(&from)),
    ];
    if evidence.contains(&Some(Ordering::Less)) {
        Verdict::Newer
    } else if evidence.iter().all(Option::is_none) {
        Verdict::Unknown
    } else {
        Verdict::Move
    }
}

/// `2026-05-31T12:00:00Z`: of this form, times are ordered as text is.
fn is_time(text: &str) -> bool {
    let form = b"0000-00-00T00:00:00Z";
    text.len() == form.len()
        && text.bytes().zip(form).all(|(byte, form)| if *form == b'0' { byte.is_ascii_digit() } else { byte == *form })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Commit;
    use proptest::prelude::*;

    fn commit(number: u8) -> Commit {
        format!("{number:040x}").parse().unwrap()
    }

    fn pointed(content: u8, revision: u8, release: Option<&str>, created: Option<&str>) -> Pointed {
        Pointed {
            digest: Digest::of(&[content]),
            revision: Some(commit(revision).to_string()),
            release: release.map(str::to_owned),
            created: created.map(str::to_owned),
        }
    }

    const MAY: Option<&str> = Some("2026-05-01T00:00:00Z");
    const JUNE: Option<&str> = Some("2026-06-01T00:00:00Z");

    #[test]
    fn older_is_told_by_time_by_number_and_by_place() {
        let updates: Vec<_> = [1, 2, 3].map(|n| Update { commit: commit(n), release: None }).into();
        let (one, two) = (Some("26.05.999"), Some("26.05.1000"));
        for (to, from, expected) in [
            (pointed(1, 8, None, MAY), pointed(2, 9, None, JUNE), Verdict::Newer),
            (pointed(1, 8, None, JUNE), pointed(2, 9, None, MAY), Verdict::Move),
            (pointed(1, 8, None, MAY), pointed(2, 9, None, MAY), Verdict::Move),
            (pointed(1, 8, one, None), pointed(2, 9, two, None), Verdict::Newer),
            (pointed(1, 8, two, None), pointed(2, 9, one, None), Verdict::Move),
            (pointed(1, 2, None, None), pointed(2, 3, None, None), Verdict::Newer),
            (pointed(1, 3, None, None), pointed(2, 1, None, None), Verdict::Move),
            // One that says "older" is enough.
            (pointed(1, 8, two, MAY), pointed(2, 9, one, JUNE), Verdict::Newer),
            (pointed(1, 8, one, JUNE), pointed(2, 9, two, MAY), Verdict::Newer),
            (pointed(1, 2, two, JUNE), pointed(2, 3, one, MAY), Verdict::Newer),
            // A rebuild of the same commit, and the same image.
            (pointed(1, 8, None, MAY), pointed(2, 8, None, JUNE), Verdict::Move),
            (pointed(1, 8, None, None), pointed(1, 9, None, None), Verdict::Same),
            // Nothing to go by.
            (pointed(1, 8, None, None), pointed(2, 9, None, None), Verdict::Unknown),
            (pointed(1, 8, None, Some("yesterday")), pointed(2, 9, None, MAY), Verdict::Unknown),
            (pointed(1, 8, Some("latest"), None), pointed(2, 9, one, None), Verdict::Unknown),
        ] {
            assert_eq!(verdict(&to, Some(&from), &updates), expected, "{to:?} {from:?}");
        }
        assert_eq!(verdict(&pointed(1, 8, None, None), None, &updates), Verdict::Move);
        let foreign = Pointed { digest: Digest::of(b"x"), revision: None, release: None, created: None };
        assert_eq!(verdict(&foreign, Some(&pointed(1, 1, None, None)), &updates), Verdict::Unknown);
    }

    proptest! {
        #[test]
        fn no_tag_moves_both_ways_between_two_commits(
            revisions in (0_u8..5, 0_u8..5), months in (1_u8..4, 1_u8..4), numbers in (0_u8..4, 0_u8..4)
        ) {
            let image = |content, revision, month: u8, number: u8| {
                let created = format!("2026-{month:02}-01T00:00:00Z");
                pointed(content, revision, Some(&format!("26.05.{number}")), Some(&created))
            };
            let (a, b) = (image(1, revisions.0, months.0, numbers.0), image(2, revisions.1, months.1, numbers.1));
            let both = verdict(&a, Some(&b), &[]) == Verdict::Move && verdict(&b, Some(&a), &[]) == Verdict::Move;
            prop_assert!(!both || revisions.0 == revisions.1 || (months.0 == months.1 && numbers.0 == numbers.1));
        }
    }
}
