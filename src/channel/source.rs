//! Asks where the channels are: git for the branches, curl for the listing of releases.
//! It must never take part of an answer for all of it.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};

use super::{Channel, Commit, Heads, MOST_PAGES, Release, parse_heads, parse_page, prefix};
use crate::call::{Answer, Call, Program, Tries};

/// For one question.
const LIMIT: Duration = Duration::from_secs(2 * 60);
/// A page has 1,000 names; ten times what that takes.
const MOST_BYTES: &str = "4000000";

/// The programs that ask.
#[derive(Debug)]
pub struct Source {
    /// For the branches.
    pub git: Program,
    /// For the listing, where there is one.
    pub curl: Option<Program>,
    /// Each question is asked so often.
    pub tries: Tries,
}

/// A release with the name of its directory.
pub type Listed = (String, Release);

impl Source {
    /// The channels that are branches of the repository at `url`.
    pub fn heads(&self, url: &str) -> anyhow::Result<Heads> {
        let call = Call::new(LIMIT, ["ls-remote", "--", url, "refs/heads/nixos-*", "refs/heads/nixpkgs-*"])
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C");
        let answer = self.tries.run(|| Ok(good(self.git.ask(&call)?)?));
        let text = answer.with_context(|| format!("cannot list the branches of `{url}`"))?;
        parse_heads(&text).with_context(|| format!("cannot understand the branches of `{url}`"))
    }

    /// The releases of `channel` in the listing at `base`, as they were made.
    pub fn releases(&self, base: &str, channel: &Channel) -> anyhow::Result<Vec<Listed>> {
        let mut releases: Vec<Listed> = Vec::new();
        let mut marker: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let after = marker.as_ref().map_or_else(String::new, |name| format!("&marker={}", percent_encoded(name)));
            let url = format!("{base}/?delimiter=/&prefix={}{after}", percent_encoded(&prefix(channel)));
            let page = self.get(&url)?;
            let page = parse_page(&page, channel).with_context(|| format!("cannot understand `{url}`"))?;
            releases.extend(page.releases);
            match page.next {
                None => {
                    releases.sort_by(|(_, one), (_, other)| one.cmp(other));
                    return Ok(releases);
                }
                Some(next) if marker.as_ref() == Some(&next) => bail!("`{url}` says that the next page is itself"),
                Some(next) => marker = Some(next),
            }
        }
        bail!("the listing of `{}` at `{base}` has more than {MOST_PAGES} pages", prefix(channel))
    }

    /// The commit of a release, which must be the one in its name.
    pub fn revision(&self, base: &str, channel: &Channel, (name, release): &Listed) -> anyhow::Result<Commit> {
        let url = format!("{base}/{}{name}/git-revision", prefix(channel));
        let text = self.get(&url)?;
        let commit: Commit = text.trim().parse().with_context(|| format!("cannot understand `{url}`"))?;
        if !release.is_of(&commit) {
            bail!("`{url}` says `{commit}`, which is not the commit in its name");
        }
        Ok(commit)
    }

    fn get(&self, url: &str) -> anyhow::Result<String> {
        let curl = self.curl.as_ref().context("no curl")?;
        // -q first: without the user's own settings.
        let call = Call::new(LIMIT, ["-q", "--silent", "--show-error", "--fail", "--location", "--globoff"])
            .arg("--proto")
            .arg("=http,https")
            .arg("--connect-timeout")
            .arg("20")
            .arg("--max-time")
            .arg("100")
            .arg("--max-filesize")
            .arg(MOST_BYTES)
            .arg(url);
        self.tries.run(|| Ok(good(curl.ask(&call)?)?)).with_context(|| format!("cannot get `{url}`"))
    }
}

/// The output of a program that succeeded, or its last message.
fn good(answer: Answer) -> anyhow::Result<String> {
    if answer.status.success() {
        return String::from_utf8(answer.stdout).context("the answer is not UTF-8");
    }
    let lines: Vec<_> = answer.stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // Git says first what is wrong, and then what one might do.
    let said = lines.iter().find(|line| line.starts_with("fatal:")).or(lines.last());
    Err(match said {
        Some(line) => anyhow!("{} ({})", line.trim_start_matches("fatal: "), answer.status),
        None => anyhow!("{}", answer.status),
    })
}

/// For a query: everything but letters, digits and `-._~/` as `%XX`.
fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_for_a_query() {
        assert_eq!(percent_encoded("nixos/26.05/a b&c=ü"), "nixos/26.05/a%20b%26c%3D%C3%BC");
    }
}
