//! What the user adds to a root once folders were laid over it: a user, and directories.
//! It must never replace a file: what is in the way of a directory is an error.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use fs_err as fs;

use super::{Beside, DIRECTORY_MODE, Item, MOST_LINKS, Properties};
use crate::failure::{hinted, shown};
use crate::root::Owner;
use crate::root::accounts::{Account, find_group, find_user};
use crate::root::new_directory::{NewDirectory, Who};
use crate::store::StoreDirectory;

const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";

impl Beside {
    /// Adds `account` to the root's `/etc/passwd` and `/etc/group`, whether they are the profile's, a folder's or those of every
    /// root. Returns those of the two that are no files, to which nobody can be added.
    pub fn add_account(&mut self, account: &Account) -> anyhow::Result<Vec<PathBuf>> {
        let has_shell = self.items.contains_key(Path::new("bin/sh"));
        let mut left_alone = Vec::new();
        for place in [PASSWD, GROUP].map(Path::new) {
            let Some((text, mode)) = self.own_file(place)? else {
                left_alone.push(place.to_owned());
                continue;
            };
            let added = if place == Path::new(PASSWD) {
                account.added_to_passwd(&text, has_shell)
            } else {
                account.added_to_group(&text)
            };
            let failed = || format!("cannot add user `{}` ({}) to `/{}`", account.name, account.id, shown(place));
            let added = added.map_err(|taken| {
                let hint = taken.hint();
                hinted(taken, hint)
            });
            if let Some(contents) = added.with_context(failed)? {
                self.items.insert(place.to_owned(), Item::Text { contents, mode });
            }
        }
        Ok(left_alone)
    }

    /// Adds a directory, or gives one that is there another mode or owner.
    pub fn add_directory(&mut self, new: &NewDirectory, store: &StoreDirectory) -> anyhow::Result<()> {
        let failed = || format!("cannot make `--mkdir {}`", shown(&new.given));
        self.try_to_add_directory(new, store).with_context(failed)
    }

    fn try_to_add_directory(&mut self, new: &NewDirectory, store: &StoreDirectory) -> anyhow::Result<()> {
        let place = self.follow(&new.path, store)?;
        let owner = self.owner(new, store)?;
        let mut properties = match self.items.get(&place) {
            Some(Item::Directory(there)) => there.clone(),
            _ => Properties { mode: DIRECTORY_MODE, ..Properties::default() },
        };
        properties.mode = new.mode.unwrap_or(properties.mode);
        properties.owner = owner.unwrap_or(properties.owner);
        self.parents(&place)?;
        self.items.insert(place, Item::Directory(properties));
        Ok(())
    }

    /// Where `path` leads once the root's links are followed. It must be free or a directory.
    fn follow(&self, path: &Path, store: &StoreDirectory) -> anyhow::Result<PathBuf> {
        let (mut here, mut links) = (PathBuf::new(), 0);
        let mut rest: Vec<_> = path.iter().rev().map(ToOwned::to_owned).collect();
        while let Some(name) = rest.pop() {
            if name == ".." {
                here.pop();
                continue;
            }
            let next = here.join(&name);
            match self.items.get(&next) {
                None | Some(Item::Directory(_)) => here = next,
                Some(Item::Symlink(target)) => {
                    links += 1;
                    if links > MOST_LINKS {
                        bail!("`/{}` is a link that leads back to itself", shown(&next));
                    }
                    if target.is_absolute() {
                        here = PathBuf::new();
                    }
                    let names =
                        target.components().rev().filter(|part| part.as_os_str() != "/" && part.as_os_str() != ".");
                    rest.extend(names.map(|part| part.as_os_str().to_owned()));
                }
                Some(Item::Text { .. } | Item::File { .. }) => bail!("`/{}` is a file", shown(&next)),
            }
            if here.starts_with(store.relative()) {
                bail!("`/{}` is in the store, to which nothing can be added", shown(path));
            }
        }
        Ok(here)
    }

    /// The owner that `new` names, with names as the root's own files have them.
    fn owner(&self, new: &NewDirectory, store: &StoreDirectory) -> anyhow::Result<Option<Owner>> {
        let user = match &new.user {
            None => None,
            Some(Who::Number(number)) => Some((*number, *number)),
            Some(Who::Name(name)) => Some(self.look_up(store, PASSWD, "user", name, |text| find_user(text, name))?),
        };
        let group = match &new.group {
            None => None,
            Some(Who::Number(number)) => Some(*number),
            Some(Who::Name(name)) => Some(self.look_up(store, GROUP, "group", name, |text| find_group(text, name))?),
        };
        Ok(match (user, group) {
            (None, None) => None,
            (user, group) => {
                let (user, own_group) = user.unwrap_or_default();
                Some(Owner { user, group: group.unwrap_or(own_group) })
            }
        })
    }

    fn look_up<T>(
        &self,
        store: &StoreDirectory,
        place: &str,
        what: &str,
        name: &str,
        find: impl Fn(&[u8]) -> Option<T>,
    ) -> anyhow::Result<T> {
        let text = self.read(Path::new(place), store)?;
        text.and_then(|text| find(&text)).ok_or_else(|| {
            let error = anyhow!("the root's `/{place}` has no {what} `{name}`");
            hinted(error, "add it with `--user` or `--rootfs`, or give a number")
        })
    }

    /// Contents and mode of the file at `place`; `None` if it is not a regular file.
    fn own_file(&self, place: &Path) -> anyhow::Result<Option<(Vec<u8>, u32)>> {
        Ok(match self.items.get(place) {
            Some(Item::Text { contents, mode }) => Some((contents.clone(), *mode)),
            Some(Item::File { from, properties, .. }) => Some((fs::read(from)?, properties.mode)),
            Some(Item::Symlink(_) | Item::Directory(_)) | None => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::{Made, Plan};

    fn store() -> StoreDirectory {
        StoreDirectory::new(Path::new("/nix/store")).unwrap()
    }

    fn root() -> Beside {
        let mut plan = Plan::store_only(&store());
        let file = |text: &str| Made::File { contents: text.into(), mode: 0o640 };
        for (place, made) in [
            ("etc", Made::DIRECTORY),
            ("etc/passwd", file("root:x:0:0:::\nweb:x:33:44:::\n")),
            ("etc/group", file("root:x:0:\nwww:x:44:\n")),
            ("run", Made::DIRECTORY),
            ("tmp", Made::Directory { mode: 0o1777, owner: Owner::ROOT }),
            ("var", Made::DIRECTORY),
            ("var/run", Made::Symlink("../run".into())),
            ("lib", Made::Symlink("/nix/store/x/lib".into())),
            ("self", Made::Symlink("/./self".into())),
        ] {
            plan.made.insert(place.into(), made);
        }
        Beside::of(&plan)
    }

    #[test]
    fn directories_are_made_where_links_lead_with_owners_by_the_roots_own_names() {
        for (given, place, mode, user, group) in [
            ("/var/log/nginx", "var/log/nginx", 0o755, 0, 0),
            ("/data:0700:web", "data", 0o700, 33, 44),
            ("/data:0700:web:root", "data", 0o700, 33, 0),
            ("/data::7", "data", 0o755, 7, 7),
            ("/data::7:www", "data", 0o755, 7, 44),
            ("/data:::www", "data", 0o755, 0, 44),
            ("/var/run/postgresql:2775:web", "run/postgresql", 0o2775, 33, 44),
            ("/tmp", "tmp", 0o1777, 0, 0),
            ("/tmp::web", "tmp", 0o1777, 33, 44),
            ("/tmp:0755", "tmp", 0o755, 0, 0),
            ("/nix/var/x", "nix/var/x", 0o755, 0, 0),
        ] {
            let mut root = root();
            root.add_directory(&given.parse().unwrap(), &store()).unwrap();
            let expected = Item::directory(mode, Owner { user, group });
            assert_eq!(root.items.get(Path::new(place)), Some(&expected), "{given}");
            for parent in Path::new(place).ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
                assert!(matches!(root.items.get(parent), Some(Item::Directory(_))), "{given}: {}", parent.display());
            }
        }
        for (given, error) in [
            ("/etc/passwd", "`/etc/passwd` is a file"),
            ("/etc/passwd/x", "`/etc/passwd` is a file"),
            ("/lib/x", "`/lib/x` is in the store"),
            ("/nix/store", "`/nix/store` is in the store"),
            ("/self/x", "`/self` is a link that leads back to itself"),
            ("/x::nobody", "the root's `/etc/passwd` has no user `nobody`"),
            ("/x:::nobody", "the root's `/etc/group` has no group `nobody`"),
        ] {
            let mut changed = root();
            let found = format!("{:#}", changed.add_directory(&given.parse().unwrap(), &store()).unwrap_err());
            assert!(found.starts_with(&format!("cannot make `--mkdir {given}`: {error}")), "{given}: {found}");
            assert_eq!(changed, root());
        }
    }

    #[test]
    fn a_user_is_added_to_the_files_that_are_there() {
        let mut added = root();
        assert_eq!(added.add_account(&"app:7".parse().unwrap()).unwrap(), [""; 0].map(PathBuf::from));
        let text = |place: &str| added.own_file(Path::new(place)).unwrap().unwrap();
        let expected = "root:x:0:0:::\nweb:x:33:44:::\napp:x:7:7:app:/home/app:/sbin/nologin\n";
        assert_eq!(text(PASSWD), (expected.into(), 0o640));
        assert_eq!(text(GROUP), ("root:x:0:\nwww:x:44:\napp:x:7:\n".into(), 0o640));
        let taken = format!("{:#}", root().add_account(&"app:33".parse().unwrap()).unwrap_err());
        assert_eq!(taken, "cannot add user `app` (33) to `/etc/passwd`: it has `web` with the number 33");
        let mut link = root();
        link.items.insert(PASSWD.into(), Item::Symlink("../run/passwd".into()));
        assert_eq!(link.add_account(&"app:7".parse().unwrap()).unwrap(), [PathBuf::from(PASSWD)]);
    }

    #[test]
    fn in_layers_the_last_has_what_is_beside_the_store() {
        let layers = root().in_layers(&store(), &[true, false, false]);
        let places: Vec<_> = layers.items.keys().map(|place| place.to_str().unwrap()).take(6).collect();
        assert_eq!(places, ["0", "0/nix", "0/nix/store", "1", "2", "2/etc"]);
        assert_eq!(layers.items[Path::new("2/var/run")], Item::Symlink("../run".into()));
    }
}
