# For `nixpkgs#hello` and flakes that take it as their input. A flake may not read the machine's files: this
# works in trees that `freeze` made.
{
  outputs = { self }: {
    legacyPackages = builtins.listToAttrs (map
      (system: { name = system; value = import ./. { inherit system; }; })
      [ "x86_64-linux" "aarch64-linux" ]);
  };
}
