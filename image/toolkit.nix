# nixkit, built from this repository as one static binary with nixpkgs. Its rustc has to be the version in
# ../rust-toolchain.toml or newer.
{ pkgs ? import <nixpkgs> { } }:

let
  cargo = builtins.fromTOML (builtins.readFile ../Cargo.toml);
  # What input-hash counts, and no more: neither documents nor tests build it again.
  wanted = [ "src" "Cargo.toml" "Cargo.lock" ".cargo" ];
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
      in builtins.elem (builtins.head (builtins.split "/" relative)) wanted;
  };
  cargoLock.lockFile = ../Cargo.lock;
  # As in ../Makefile where rustup has no musl: this way nixpkgs' own rustc does it, from its binary cache.
  RUSTFLAGS = "-C target-feature=+crt-static -C relocation-model=static";
  buildInputs = [ pkgs.glibc.static ];
  cargoBuildFlags = [ "--bin" "nixkit" ];
  # The tests need root and engines: `make test`.
  doCheck = false;
}
