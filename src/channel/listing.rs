//! Reads the public listing of releases, one page of an S3 bucket's XML after the other.
//! It must never take a page that is something else for one without releases.

use anyhow::{Context, bail};
use roxmltree::{Document, Node};

use super::{Channel, Release};

/// More pages than any channel's listing has; a listing that goes on for longer is broken.
pub const MOST_PAGES: usize = 20;

/// Where a channel's releases lie below the bucket's root.
///
/// As nixos-channel-scripts has it: `nixpkgs/` for nixpkgs-unstable, else the name with `/` for its first `-`.
pub fn prefix(channel: &Channel) -> String {
    match channel.parts() {
        ("nixpkgs", "unstable") => "nixpkgs/".to_owned(),
        (family, rest) => format!("{family}/{rest}/"),
    }
}

/// One page.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The directories and the releases that they are, in the page's order.
    pub releases: Vec<(String, Release)>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// Reads one page of the answer to `?delimiter=/&prefix=…&marker=…`. What lies there and is no release of
/// the channel is left out.
pub fn parse_page(text: &str, channel: &Channel) -> anyhow::Result<Listing> {
    let document = Document::parse(text).context("it is no XML")?;
    let root = document.root_element();
    if root.tag_name().name() != "ListBucketResult" {
        bail!("it is `{}` and no `ListBucketResult`", root.tag_name().name());
    }
    let prefix = prefix(channel);
    let child = |name: &str| text_of(root, name);
    if child("Prefix").is_some_and(|listed| listed != prefix) {
        bail!("it lists `{}` and not `{prefix}`", child("Prefix").unwrap_or_default());
    }
    let mut listing = Listing::default();
    let mut last = None;
    for entry in root.children().filter(|node| node.tag_name().name() == "CommonPrefixes") {
        let Some(path) = text_of(entry, "Prefix") else { continue };
        last = Some(path.to_owned());
        let name = path.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix('/'));
        if let Some((name, release)) = name.and_then(|name| Some((name, Release::parse(name, channel)?))) {
            listing.releases.push((name.to_owned(), release));
        }
    }
    if child("IsTruncated") == Some("true") {
        // S3 promises NextMarker with a delimiter; not everything that speaks its protocol does.
        let next = child("NextMarker").map(str::to_owned).or(last);
        listing.next = Some(next.context("it says that there are more pages, but not where")?);
    }
    Ok(listing)
}

fn text_of<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    node.children().find(|child| child.tag_name().name() == name).and_then(|child| child.text())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn channel(name: &str) -> Channel {
        name.parse().unwrap()
    }

    const PAGE: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
        <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>nix-releases</Name>\
        <Prefix>nixos/26.05/</Prefix><Marker></Marker><MaxKeys>1000</MaxKeys><Delimiter>/</Delimiter>\
        <IsTruncated>false</IsTruncated><Contents><Key>nixos/26.05/latest</Key></Contents>\
        <CommonPrefixes><Prefix>nixos/26.05/nixos-26.05.7273.0123456789ab/</Prefix></CommonPrefixes>\
        <CommonPrefixes><Prefix>nixos/26.05/nixos-26.05.999.abcdef012345/</Prefix></CommonPrefixes>\
        <CommonPrefixes><Prefix>nixos/26.05/nixos-26.05.x.y/</Prefix></CommonPrefixes>\
        <CommonPrefixes><Prefix>nixos/26.05/../../etc/</Prefix></CommonPrefixes>\
        <CommonPrefixes><Prefix>nixos/unstable/nixos-26.05.1.0123456789ab/</Prefix></CommonPrefixes>\
        </ListBucketResult>";

    #[test]
    fn prefixes_are_those_of_the_channel_scripts() {
        for (name, expected) in [
            ("nixos-26.05", "nixos/26.05/"),
            ("nixos-26.05-small", "nixos/26.05-small/"),
            ("nixos-unstable", "nixos/unstable/"),
            ("nixpkgs-unstable", "nixpkgs/"),
            ("nixpkgs-26.05-darwin", "nixpkgs/26.05-darwin/"),
        ] {
            assert_eq!(prefix(&channel(name)), expected);
        }
    }

    #[test]
    fn a_page_is_its_releases() {
        let listing = parse_page(PAGE, &channel("nixos-26.05")).unwrap();
        let numbers: Vec<_> = listing.releases.iter().map(|(_, release)| release.to_string()).collect();
        assert_eq!(numbers, ["26.05.7273", "26.05.999"]);
        assert_eq!(listing.releases[0].0, "nixos-26.05.7273.0123456789ab");
        assert_eq!(listing.next, None);
    }

    #[test]
    fn pages_say_where_the_next_begins() {
        let more = PAGE.replace("<IsTruncated>false", "<IsTruncated>true");
        let listing = parse_page(&more, &channel("nixos-26.05")).unwrap();
        assert_eq!(listing.next.as_deref(), Some("nixos/unstable/nixos-26.05.1.0123456789ab/"));
        let marked = more.replace("<Marker>", "<NextMarker>nixos/26.05/x/</NextMarker><Marker>");
        assert_eq!(parse_page(&marked, &channel("nixos-26.05")).unwrap().next.as_deref(), Some("nixos/26.05/x/"));
    }

    #[test]
    fn what_is_no_listing_is_an_error() {
        let empty_but_more = "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
        for (page, message) in [
            ("", "it is no XML"),
            ("busy", "it is no XML"),
            ("<html><body>busy</body></html>", "it is `html` and no `ListBucketResult`"),
            ("<Error><Code>AccessDenied</Code></Error>", "it is `Error` and no `ListBucketResult`"),
            (&PAGE[..PAGE.len() - 5], "it is no XML"),
            (empty_but_more, "it says that there are more pages, but not where"),
        ] {
            assert_eq!(parse_page(page, &channel("nixos-26.05")).unwrap_err().to_string(), message);
        }
        let other = parse_page(PAGE, &channel("nixos-25.11")).unwrap_err().to_string();
        assert_eq!(other, "it lists `nixos/26.05/` and not `nixos/25.11/`");
        let empty = parse_page("<ListBucketResult/>", &channel("nixos-26.05")).unwrap();
        assert_eq!(empty, Listing::default());
    }

    proptest! {
        #[test]
        fn damage_is_an_error_or_a_page_of_sound_releases(at in 0..PAGE.len(), byte: u8, length in 0_usize..6) {
            let mut damaged = PAGE.as_bytes().to_vec();
            let end = (at + length).min(damaged.len());
            damaged.splice(at..end, [byte]);
            let text = String::from_utf8_lossy(&damaged);
            if let Ok(listing) = parse_page(&text, &channel("nixos-26.05")) {
                for (name, release) in listing.releases {
                    prop_assert!(!name.contains('/') && !name.contains(".."));
                    let start = format!("nixos-{release}.");
                    prop_assert!(name.starts_with(&start));
                }
            }
        }
    }
}
