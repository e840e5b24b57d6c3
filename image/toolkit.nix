# nixkit, built from this repository as one static binary with nixpkgs. Its rustc must be at least as new as
# `rust-version` in ../Cargo.toml: 1.85, which nixpkgs has had since nixos-25.05.
{ pkgs ? import <nixpkgs> { } }:

let
  cargo = builtins.fromTOML (builtins.readFile ../Cargo.toml);
  # Also what input-hash covers. A change elsewhere, as to a document or a test, builds nothing again.
  sources = builtins.filter (line: builtins.isString line && line != "") (builtins.split "\n" (builtins.readFile ./sources));
  root = toString ../.;
in
pkgs.rustPlatform.buildRustPackage {
  pname = cargo.package.name;
  inherit (cargo.package) version;
  src = builtins.path {
    name = "nixkit-source";
    path = ../.;
    filter = path: _:
      let relative = builtins.substring (builtins.stringLength root + 1) (-1) (toString path);
      in builtins.elem (builtins.head (builtins.split "/" relative)) sources;
  };
  cargoLock.lockFile = ../Cargo.lock;
  # As in ../Makefile where rustup has no musl: this way nixpkgs' own rustc does it, from its binary cache.
  RUSTFLAGS = "-C target-feature=+crt-static -C relocation-model=static";
  buildInputs = [ pkgs.glibc.static ];
  cargoBuildFlags = [ "--bin" "nixkit" ];
  # The tests need root and engines: `make test`.
  doCheck = false;
}
