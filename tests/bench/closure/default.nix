# The closure that the benchmark copies: installed Debian packages as they lie on this machine, each a store
# path that refers to the packages it depends on; a path of very many small files; one whose inodes have several
# names; and on top a profile, the user environment of them all, made by Nix's own builder.
#
# `plan` is a JSON file: [{ "name", "version", "dependencies": [name…] }…], every dependency before its users.
{ plan, smallFiles ? 20000 }:
let
  make = name: version: script: environment:
    derivation (environment // {
      inherit name version;
      system = builtins.currentSystem;
      builder = "/bin/bash";
      # bash stays to the end. A program of coreutils in its place would close its stdout some time before it
      # ends, and at that Nix 2.8 kills a builder.
      args = [ "-euc" ". ${script}\nexit 0" ];
      PATH = "/usr/bin:/bin";
      LC_ALL = "C";
    });

  # Nix allows fewer characters in a name than Debian.
  storeName = package: "${package.name}-${builtins.replaceStrings [ ":" "~" ] [ "-" "-" ] package.version}";

  add = packages: package: packages // {
    ${package.name} = make (storeName package) package.version ./package.sh {
      debian = package.name;
      dependencies = map (dependency: packages.${dependency}) package.dependencies;
    };
  };
  packages = builtins.foldl' add { } (builtins.fromJSON (builtins.readFile plan));

  many = make "many-small-files" "1" ./many-small-files.sh { count = smallFiles; };
  linked = make "several-names" "1" ./several-names.sh { };
  all = builtins.attrValues packages ++ [ many linked ];
in
derivation {
  name = "user-environment";
  system = "builtin";
  builder = "builtin:buildenv";
  # Whether it is active, its priority, the number of outputs, and each.
  derivations = map (path: [ "true" "5" "1" path ]) all;
  manifest = builtins.toFile "manifest.nix" "[ ]";
}
