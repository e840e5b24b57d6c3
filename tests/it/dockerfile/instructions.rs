//! What `docker build` refuses in an instruction, and what it accepts.

use nixkit::dockerfile::{Reason, images};

fn refused(source: &str) -> Option<(usize, Reason)> {
    match images::read(source.as_bytes()) {
        Ok(images) => images.refused.map(|refused| (refused.line, refused.reason)),
        Err(refused) => Some((refused.line, refused.reason)),
    }
}

#[test]
fn an_instruction_is_refused_for_what_buildkit_refuses() {
    for (instruction, reason) in [
        ("FOO bar", Reason::UnknownInstruction),
        ("FROMM a", Reason::UnknownInstruction),
        ("<<<<<<< HEAD", Reason::UnknownInstruction),
        ("ADD --from=a /x /y", Reason::UnknownFlag),
        ("COPY --form=a /x /y", Reason::UnknownFlag),
        ("RUN --mounts=x true", Reason::UnknownFlag),
        ("FROM --pull a", Reason::UnknownFlag),
        ("ENV --a b=c", Reason::UnknownFlag),
        ("WORKDIR --a /", Reason::UnknownFlag),
        ("CMD --a b", Reason::UnknownFlag),
        ("ONBUILD --a RUN b", Reason::UnknownFlag),
        ("COPY --from=a --from=b /x /y", Reason::FlagTwice),
        ("COPY --from /x /y", Reason::FlagWithoutValue),
        ("COPY --link= /x /y", Reason::FlagWithoutValue),
        ("COPY --link=maybe /x /y", Reason::FlagValue),
        ("HEALTHCHECK --interval=soon CMD a", Reason::FlagValue),
        ("HEALTHCHECK --interval=5 CMD a", Reason::FlagValue),
        ("HEALTHCHECK --interval=1us CMD a", Reason::FlagValue),
        ("HEALTHCHECK --retries=-1 CMD a", Reason::FlagValue),
        ("HEALTHCHECK --retries=many CMD a", Reason::FlagValue),
        ("RUN --mount= true", Reason::MountFields),
        ("RUN --mount=a\\\"b true", Reason::MountFields),
        ("RUN --mount=\\\"a\\\"b true", Reason::MountFields),
        ("RUN --mount=\\\"a true", Reason::MountFields),
        ("RUN --mount=type=bind,from=$A true", Reason::MountVariable),
        ("COPY a", Reason::NoDestination),
        ("COPY", Reason::NoDestination),
        ("ADD [\"a\"]", Reason::NoDestination),
        ("COPY a <<E\nE", Reason::HeredocDestination),
        ("ENV", Reason::NoArgument),
        ("LABEL", Reason::NoArgument),
        ("ARG", Reason::NoArgument),
        ("EXPOSE", Reason::NoArgument),
        ("USER", Reason::NoArgument),
        ("WORKDIR", Reason::NoArgument),
        ("STOPSIGNAL", Reason::NoArgument),
        ("MAINTAINER", Reason::NoArgument),
        ("VOLUME", Reason::NoArgument),
        ("VOLUME []", Reason::NoArgument),
        ("SHELL", Reason::NoArgument),
        ("SHELL []", Reason::NoArgument),
        ("ONBUILD", Reason::NoArgument),
        ("HEALTHCHECK", Reason::NoArgument),
        ("ENV =a", Reason::BlankName),
        ("ENV a=b =c", Reason::BlankName),
        ("ARG =a", Reason::BlankName),
        ("VOLUME [\" \"]", Reason::BlankVolume),
        ("SHELL sh -c", Reason::NotJson),
        ("HEALTHCHECK NONE x", Reason::Healthcheck),
        ("HEALTHCHECK CMD", Reason::Healthcheck),
        ("HEALTHCHECK CMD []", Reason::Healthcheck),
        ("HEALTHCHECK RUN a", Reason::Healthcheck),
        ("ONBUILD ONBUILD RUN a", Reason::OnbuildOnbuild),
        ("ONBUILD ONBUILD", Reason::OnbuildOnbuild),
        ("ONBUILD FROM a", Reason::OnbuildTrigger),
        ("ONBUILD MAINTAINER a", Reason::OnbuildTrigger),
        ("RUN [1]", Reason::JsonArray),
        ("ENV a", Reason::NoValue),
        ("ENV a=b c", Reason::NoEqualsSign),
        ("FROM a b", Reason::FromArguments),
    ] {
        assert_eq!(refused(&format!("FROM a\n{instruction}\n")), Some((2, reason)), "{instruction}");
    }
    for (source, expected) in [
        ("RUN x\nFROM a", (1, Reason::NoStageYet)),
        ("ARG A\nCOPY a b\nFROM a", (2, Reason::NoStageYet)),
        ("ARG A=b", (0, Reason::NoFrom)),
        ("ARG A=b\nFOO\nFROM a\nBAR", (2, Reason::UnknownInstruction)),
        ("ARG A='\nFROM a", (1, Reason::Variable("a ' is not closed"))),
    ] {
        assert_eq!(refused(source), Some(expected), "{source}");
    }
}

#[test]
fn an_instruction_that_buildkit_accepts_is_not_refused() {
    for instruction in [
        "add --chown=a --chmod=1 --link --keep-git-dir=true --checksum=x --exclude=a --exclude=b --unpack a b",
        "COPY --from=a --chown=b --chmod=c --link=FALSE --parents --exclude=x a b /c",
        "COPY [\"a\", \"b\"]",
        "COPY [ a",
        "COPY <<E /x\nE",
        "RUN",
        "RUN --network=none --security=insecure --mount=type=cache,target=/x --mount=type=secret,id=a,required --device=x a",
        "RUN --mount=type=bind,\"from=a,b\",target=/x a",
        "RUN --mount=type=cache,target=/$A a",
        "RUN --mount=from=a$ a",
        "HEALTHCHECK NONE",
        "HEALTHCHECK --anything NONE",
        "HEALTHCHECK --interval=1h1m1.5s --timeout=.5s --start-period=0 --start-interval= --retries=3 cmd a",
        "HEALTHCHECK CMD [\"a\"]",
        "ENV a=",
        "ENV a b",
        "ARG a b=c",
        "ARG --any a",
        "STOPSIGNAL --any 9",
        "VOLUME /a /b",
        "VOLUME [\"/a\"]",
        "SHELL [\"sh\", \"-c\"]",
        "CMD",
        "CMD []",
        "ENTRYPOINT",
        "EXPOSE 1 2/udp",
        "USER a b",
        "WORKDIR a b",
        "MAINTAINER a b",
        // Checked when it is triggered.
        "ONBUILD FOO",
        "ONBUILD COPY a",
        "ONBUILD RUN --x y",
    ] {
        assert_eq!(refused(&format!("FROM a\n{instruction}\n")), None, "{instruction}");
    }
    // Another frontend has other instructions.
    for frontend in ["example.com/my/frontend", "devthefuture/dockerfile-x"] {
        assert_eq!(refused(&format!("# syntax={frontend}\nINCLUDE x\nFROM a\nFOO --x\n")), None, "{frontend}");
    }
    for frontend in
        ["docker/dockerfile:1", "docker.io/docker/dockerfile-upstream:master", "mirror.example.com/docker/dockerfile:1"]
    {
        let found = refused(&format!("# syntax={frontend}\nFROM a\nFOO --x\n"));
        assert_eq!(found, Some((3, Reason::UnknownInstruction)), "{frontend}");
    }
}
