//! The base image, and the way from it to an image that runs, with real engines: Docker's classic builder and
//! BuildKit, buildah, a registry. One base image serves all; nothing here may need a network.

mod base;
mod builders;
mod contents;
mod pins;
mod registry;
mod toolkit;
