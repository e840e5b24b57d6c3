//! Which applet a name means, and the table of applets.
//! Nothing else may import an applet, and only applets that work are in the table.

mod additions;
mod bash_tmate;
mod export_image;
mod export_profile;
mod inspect;
mod manual;
mod multicall;
mod options;
mod profile;
mod start_tmate;
mod sync_dockerfile;
mod update_images;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::failure::{UnknownApplet, hinted, shown};
use crate::scene;
use crate::tmate::session::guard;

/// One of the names under which this program can be called.
#[derive(Debug)]
pub struct Applet {
    /// The name of the symlink.
    pub name: &'static str,
    /// One line of help.
    pub about: &'static str,
    /// Runs it with its arguments; the first one is the name that help and errors show.
    run: fn(Vec<OsString>) -> anyhow::Result<u8>,
    /// What it understands, for completions and manual pages.
    command: fn() -> clap::Command,
}

/// A program that a session runs under a hidden name, with the arguments after that.
type Hidden = fn(&[OsString]) -> anyhow::Result<u8>;

/// Every applet, in the order in which help lists them.
pub const APPLETS: &[Applet] = &[
    Applet {
        name: "export-profile",
        about: "Copy a Nix profile and its closure into a root directory",
        run: export_profile::run,
        command: export_profile::command,
    },
    Applet {
        name: "export-image",
        about: "Write a Nix profile and its closure as an OCI image",
        run: export_image::run,
        command: export_image::command,
    },
    Applet {
        name: "sync-dockerfile",
        about: "Let the base image in a Dockerfile follow the pinned nixpkgs",
        run: sync_dockerfile::run,
        command: sync_dockerfile::command,
    },
    Applet {
        name: "start-tmate",
        about: "Open a tmate session, and end it once nobody is connected",
        run: start_tmate::run,
        command: start_tmate::command,
    },
    Applet {
        name: "bash-tmate",
        about: "Run bash, and open such a session where it fails",
        run: bash_tmate::run,
        command: bash_tmate::command,
    },
    Applet {
        name: "update-images",
        about: "Build, test and push a base image for every channel update that has none",
        run: update_images::run,
        command: update_images::command,
    },
];

/// What this program calls itself for within a session; not for people, so in no list.
const HIDDEN: &[(&str, Hidden)] = &[(guard::PANE, guard::run_pane), (scene::RESTORED, bash_tmate::report_restored)];

/// From which likeness on a name is taken for a slip of the hand.
const LIKE: f64 = 0.8;

/// The program's own name.
pub const OWN_NAME: &str = "nixkit";

/// What `argv[0]` names: its last component, without the `-` that a login shell puts before it, and
/// without Nix's `.NAME-wrapped`, in this order.
///
/// Not clap's `multicall`: that fails on the last two forms.
pub fn called_name(argv0: &OsStr) -> &OsStr {
    let bytes = argv0.as_bytes();
    let base = bytes.rsplit(|&byte| byte == b'/').next().unwrap_or(bytes);
    let base = base.strip_prefix(b"-").unwrap_or(base);
    let name = base
        .strip_prefix(b".")
        .and_then(|rest| rest.strip_suffix(b"-wrapped"))
        .filter(|name| !name.is_empty())
        .unwrap_or(base);
    OsStr::from_bytes(name)
}

fn find(name: &OsStr) -> Option<&'static Applet> {
    APPLETS.iter().find(|applet| name == applet.name)
}

/// Runs the applet that `arguments` (with `argv[0]`) ask for. Returns the name that stands before each
/// message, and the exit status or the error.
pub fn dispatch(mut arguments: Vec<OsString>) -> (String, anyhow::Result<u8>) {
    let argv0 = arguments.first().cloned().unwrap_or_default();
    let name = called_name(&argv0);
    if let Some(applet) = find(name) {
        arguments[0] = applet.name.into();
        return (applet.name.to_owned(), (applet.run)(arguments));
    }
    // `exe` is this program's name below `/proc`, by which a session's window runs it.
    if name == OWN_NAME || name == "exe" {
        let hidden = HIDDEN.iter().find(|(word, _)| arguments.get(1).is_some_and(|first| first == word));
        if let Some((word, run)) = hidden {
            return ((*word).to_owned(), run(&arguments[2..]));
        }
    }
    if name != OWN_NAME {
        // `exec -a NAME bash-tmate`, as people call a bash that is to have another `$0`: the file has the name.
        let file = OsStr::from_bytes(rustix::param::linux_execfn().to_bytes());
        return match find(called_name(file)) {
            Some(applet) => (applet.name.to_owned(), (applet.run)(arguments)),
            None => (OWN_NAME.to_owned(), Err(unknown(name))),
        };
    }
    // `nixkit help APPLET` is what people type who come from other tools.
    if arguments.get(1).is_some_and(|word| word == "help") && arguments.len() == 3 {
        arguments.remove(1);
        arguments.push("--help".into());
    }
    let first = arguments.get(1).map(OsString::as_os_str);
    match first {
        Some(first) if !first.as_bytes().starts_with(b"-") && first != "help" => match find(first) {
            Some(applet) => {
                arguments.remove(0);
                (applet.name.to_owned(), (applet.run)(arguments))
            }
            None => (OWN_NAME.to_owned(), Err(unknown(first))),
        },
        _ => (OWN_NAME.to_owned(), multicall::run(arguments)),
    }
}

fn unknown(name: &OsStr) -> anyhow::Error {
    let names: Vec<_> = APPLETS.iter().map(|applet| applet.name).collect();
    let meant = similar(&shown(name)).map_or_else(String::new, |meant| format!("did you mean `{meant}`? Or "));
    hinted(
        UnknownApplet(shown(name)),
        format!("{meant}call it `{OWN_NAME}`, or by the name of an applet: {}", names.join(", ")),
    )
}

/// The applet whose name is most like `name`, if one is like it: as clap judges options.
fn similar(name: &str) -> Option<&'static str> {
    let likeness = APPLETS.iter().map(|applet| (strsim::jaro_winkler(name, applet.name), applet.name));
    likeness.filter(|(likeness, _)| *likeness > LIKE).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_comes_from_argv_zero() {
        for (argv0, name) in [
            ("export-profile", "export-profile"),
            ("/bin/export-profile", "export-profile"),
            ("../a b/export-profile", "export-profile"),
            ("-export-profile", "export-profile"),
            ("/bin/-export-profile", "export-profile"),
            (".export-profile-wrapped", "export-profile"),
            ("/nix/store/x/bin/.export-profile-wrapped", "export-profile"),
            ("-.export-profile-wrapped", "export-profile"),
            ("--export-profile", "-export-profile"),
            ("export-profile-wrapped", "export-profile-wrapped"),
            (".-wrapped", ".-wrapped"),
            ("nixkit", "nixkit"),
            (".nixkit-wrapped", "nixkit"),
            ("my-export-profile", "my-export-profile"),
            ("bin/", ""),
            ("", ""),
            ("-", ""),
        ] {
            assert_eq!(called_name(OsStr::new(argv0)), name, "{argv0}");
        }
        assert_eq!(called_name(OsStr::from_bytes(b"/bin/\xff")), OsStr::from_bytes(b"\xff"));
    }

    #[test]
    fn a_slip_of_the_hand_is_understood() {
        for (name, meant) in [
            ("export-profil", Some("export-profile")),
            ("exportprofile", Some("export-profile")),
            ("export", Some("export-image")),
            ("export_image", Some("export-image")),
            ("sh", None),
            ("", None),
        ] {
            assert_eq!(similar(name), meant, "{name}");
        }
    }

    #[test]
    fn every_command_is_well_made() {
        for applet in APPLETS {
            (applet.command)().debug_assert();
        }
        multicall::command().debug_assert();
    }

    #[test]
    fn names_are_unique_and_none_is_the_programs_own() {
        for (i, applet) in APPLETS.iter().enumerate() {
            assert_ne!(applet.name, OWN_NAME);
            assert!(APPLETS[..i].iter().all(|other| other.name != applet.name));
        }
    }
}
