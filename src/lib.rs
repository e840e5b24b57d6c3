//! nixkit: one static binary with several names, for container images of software that Nix built.
//!
//! This page is the map of the code: which way data flows, who may import whom, and the conventions that
//! hold everywhere. README.md and `docs/` are for users.
//!
//! # The way through
//!
//! ```text
//! argv ──parse──▶ Request ──store──▶ closure ──root──▶ Plan ──sink──▶ Receipt ──report──▶ exit status
//!       pure              read only           pure           write             print
//! ```
//!
//! `sync-dockerfile` has the same shape:
//!
//! ```text
//! bytes ──dockerfile──▶ occurrences of images ──rewrite (with what pins read)──▶ edits ──▶ bytes ──sink::replace──▶ file
//! ```
//!
//! A tmate session has no such way, but turns in a circle:
//!
//! ```text
//! words, variables ──parse──▶ Options     Event (answer, line, signal, time) ──clock──▶ Action ──session──▶ …
//!                    pure                                                     pure           act
//! ```
//!
//! `bash-tmate` is that after something else:
//!
//! ```text
//! argv ──bash::invocation──▶ Invocation ──sys──▶ bash ──supervise──▶ Outcome ──bash::account, bash::replay──▶ session ▶ exit status
//!       pure                             starts        signals                pure                  in a child
//! ```
//!
//! Each arrow is one function from one named type to the next, and an applet's `run` is that chain:
//! nothing left of [`sink`] writes, nothing but [`report`] prints, nothing downstream calls upstream. The
//! modules below stand in the order in which data flows.
//!
//! Channels, commits and releases of nixpkgs have their names in [`nixpkgs`], for all applets. A file that the user named is
//! read by [`input`], which refuses what is not a regular file.
//!
//! `update-images` has the same shape: channels and what a registry has of them, read, ──judge──▶ jobs, pure,
//! ──publish──▶ receipt. [`channel`] and [`registry`] say what they are, [`update`] does it.
//!
//! # Who may import whom
//!
//! `main` sees [`applet`] and [`report`]. An applet sees everything, and nothing imports an applet.
//! [`store`], [`closure`], [`sbom`], [`root`], [`layers`], [`oci`], [`dockerfile`], [`pins`], [`sink::link`] and
//! [`sink::receipt`] are pure: no input or output, apart from [`store::query`], which alone asks Nix and reads
//! profiles. So are [`channel`] and [`registry`], apart from [`channel::source`] and [`registry::skopeo`], which ask,
//! and of [`update`] what decides. [`dockerfile`] and [`pins`] do not know each other: the applet brings them together.
//! [`tmate`] is pure but for [`tmate::session`], which starts tmate and asks it. [`bash`] is pure; [`scene`] holds
//! its files in memory, [`script_text`] looks at a script before bash reads it, [`job`] finds the other shells of a
//! job, and [`supervise`] runs the process. [`sys`] alone has unsafe code. [`sink`] knows what to write, not
//! why. The test `architecture` reads the `use` lines and holds this table.
//!
//! # An image
//!
//! ```text
//! closure ──layers──▶ which path in which layer ──sink::oci──▶ blobs in a draft ──▶ a layout that was added to, or made
//!           pure                                  contents (reads) → pipeline (compresses) → blobs (writes)
//! ```
//!
//! [`sink::oci`] reads in one thread, compresses fixed parts in several, and writes in one, in order: what a blob
//! holds cannot hang on the number of threads. The documents of the format are in [`oci`], which knows no disk.
//!
//! # Adding to it
//!
//! - An applet: a file in `src/applet/` with its clap arguments and `run`, and a row in [`applet::APPLETS`].
//! - A link mode or an errno that has a meaning: [`sink::link`], with a row in its table test.
//! - Something that every root has beside its store: a row of the table in `root::complete`, and in
//!   `docs/root-filesystem.md`.
//! - What shares a layer with what: [`layers::split`], for images and layered exports alike.
//! - A fact about a closure, such as what would go with what: [`closure::Graph`], said by `report::sizes`.
//! - An option of bash that matters: [`bash::invocation`], with rows in its tests and in
//!   `tests/it/bash_tmate/caller.rs`. Something a script might notice: a row in `tests/it/bash_tmate/scripts.rs`.
//! - A line of tmate's that has a meaning: [`tmate::log`]. Another end of a session: [`tmate::clock`].
//! - A setting of a container: a field of [`oci::Settings`] with its rule, and an option of `export-image`.
//! - A label of images: [`oci::labels`], which has the prefix of this project's names.
//! - A question to Nix: [`store::query::NixStore`], its answer parsed by a pure function beside
//!   [`store::registration`].
//! - A message of skopeo's that means something: [`registry::read_refusal`], with the recorded text in its table, and in
//!   `docs/registries.md`.
//!
//! - A rule of Dockerfiles: [`dockerfile::scanner`], [`dockerfile::expand`] or [`dockerfile::instructions`], which follow
//!   BuildKit's own code, with a row in `tests/it/dockerfile.rs` or below it; one of rewriting: [`dockerfile::rewrite`], with a
//!   case in `tests/fixtures/sync`.
//! - A format of pins: a module below [`pins`], with rows in `tests/it/pins.rs`; it tells the [`pins::Origin`] too.
//!
//! # Conventions
//!
//! - **Words** are Nix's and OCI's own: store path (hash part and name), store directory, closure,
//!   references, NAR hash, registration, profile, generation, user environment.
//! - **Errors** are `anyhow` at the edges, verb and `object`, lower case, no final period; typed where code
//!   branches ([`failure`]). Printed once, by `main`, with a `hint:` where there is something to do. No
//!   error is matched by its text, but skopeo's in [`registry::read_refusal`].
//! - **Falling back** happens only on a listed errno ([`sink::link::verdict`]), is counted in the receipt,
//!   and never where the user named a mode.
//! - **Nothing half done**: everything is written to a [`sink::draft`] and renamed into place. With
//!   `panic = "abort"` no destructor runs, so safety comes from that rename, never from `Drop`.
//! - **Every close is checked**: NFS, FUSE and quotas report lost writes only then. Files are written by [`file`], or closed
//!   with [`file::close`]; the tests let every call that writes fail once.
//! - **Names are bytes.** They are copied as they are and shown by [`failure::shown`].
//! - **System calls** go through the crate `nix`; `rustix` serves for those of which `nix` has no safe form,
//!   or none for musl: FICLONE, getdents64 on a descriptor that is used for more, renameat2, statx. (It
//!   leaves the C library's `errno` alone: after one of its calls only its own result counts.)
#![deny(unsafe_code)]

pub mod failure;

pub mod applet;
pub mod call;
pub mod file;
pub mod input;
pub mod interrupt;
pub mod nixpkgs;
pub mod program;
pub mod store;

pub mod dockerfile;
pub mod pins;

pub mod closure;
pub mod sbom;

pub mod channel;
pub mod layers;
pub mod oci;
pub mod registry;
pub mod root;

pub mod progress;
pub mod sink;

pub mod bash;
pub mod sys;

pub mod job;
pub mod scene;
pub mod script_text;
pub mod supervise;
pub mod tmate;
pub mod update;

pub mod report;
