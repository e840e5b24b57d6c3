//! `nixkit`: arguments in, exit status out. Which applet runs is decided by [`nixkit::applet`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

use nixkit::{applet, report};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let (called_as, outcome) = applet::dispatch(arguments);
    ExitCode::from(report::outcome(&called_as, outcome))
}
