//! What is said of a tmate session, in a log that others read too.
//! It must never print to stdout, which belongs to the script that failed.

use super::{Level, Voice, complain};
use crate::failure::{Hinted, shown};
use crate::tmate::clock::{Left, Links, in_words};

impl Voice {
    /// Something about the session that everybody should see.
    pub fn session(&self, text: &str) {
        self.say(Level::Normal, text);
    }

    /// How to connect: one line, the same whenever it is said but for the time that is left.
    pub fn links(&self, links: &Links, left: Left) {
        self.say(Level::Quiet, &links_in_words(links, left));
    }

    /// Why there is no session, or no longer one. Not an error of the whole run: that is for `main` to say.
    pub fn session_failed(&self, error: &anyhow::Error) {
        self.say(Level::Normal, &format!("{error:#}"));
        if let Some(hinted) = error.downcast_ref::<Hinted>().filter(|_| self.level >= Level::Normal) {
            complain(&format!("hint: {}\n", hinted.hint));
        }
    }
}

fn links_in_words(links: &Links, left: Left) -> String {
    let ways: Vec<_> = [
        ("connect with", &links.ssh),
        ("look on with", &links.ssh_read_only),
        ("in a browser", &links.web),
        ("look on in a browser", &links.web_read_only),
    ]
    .into_iter()
    .filter(|(_, link)| !link.is_empty())
    .map(|(what, link)| format!("{what}: {}", shown(link)))
    .collect();
    format!("{} ({})", ways.join(", "), left_in_words(left))
}

fn left_in_words(left: Left) -> String {
    match (left.idle, left.cap) {
        (Some(idle), Some(cap)) if cap <= idle => format!("ends in {}", in_words(cap)),
        (Some(idle), _) => format!("ends in {} unless somebody connects", in_words(idle)),
        (None, Some(cap)) => format!("somebody is connected; ends in {} at the latest", in_words(cap)),
        (None, None) => "somebody is connected".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn all_links_are_one_line() {
        let mut links = Links { ssh: "ssh x@h".into(), ..Links::default() };
        let left = Left { idle: None, cap: None };
        assert_eq!(links_in_words(&links, left), "connect with: ssh x@h (somebody is connected)");
        links.ssh_read_only = "ssh ro-x@h".into();
        links.web = "https://h/t/x".into();
        links.web_read_only = "https://h/t/ro-x\n".into();
        let expected = "connect with: ssh x@h, look on with: ssh ro-x@h, in a browser: https://h/t/x, look on in a \
                        browser: https://h/t/ro-x\\n (somebody is connected)";
        assert_eq!(links_in_words(&links, left), expected);
    }

    #[test]
    fn the_time_that_is_left_is_the_nearer_limit() {
        let seconds = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        for (idle, cap, expected) in [
            (Some(60), Some(10_800), "ends in 60 s unless somebody connects"),
            (Some(60), Some(30), "ends in 30 s"),
            (Some(60), None, "ends in 60 s unless somebody connects"),
            (None, Some(10_800), "somebody is connected; ends in 3 h 0 min at the latest"),
            (None, None, "somebody is connected"),
        ] {
            assert_eq!(left_in_words(Left { idle: seconds(idle), cap: seconds(cap) }), expected);
        }
    }
}
