//! Layers through the pipeline, with blobs kept in memory.

use std::io::Read;
use std::path::Path;

use super::*;
use std::fs::File;

/// Blobs as they were written, with their digests.
#[derive(Default)]
struct Memory {
    blobs: Vec<(Vec<u8>, Option<Digest>)>,
    /// Fails when so many bytes have come.
    room: Option<usize>,
}

impl Blobs for Memory {
    fn begin(&mut self) -> anyhow::Result<()> {
        self.blobs.push((Vec::new(), None));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let (blob, _) = self.blobs.last_mut().context("nothing was begun")?;
        blob.extend_from_slice(bytes);
        anyhow::ensure!(self.room.is_none_or(|room| blob.len() <= room), "full");
        Ok(())
    }

    fn end(&mut self, digest: &Digest) -> anyhow::Result<()> {
        self.blobs.last_mut().context("nothing was begun")?.1 = Some(digest.clone());
        Ok(())
    }

    fn take(&mut self, _: &File, _: &Path, _: &Digest) -> anyhow::Result<()> {
        anyhow::bail!("there are no files here")
    }

    fn give(&mut self, _: &Digest, _: &Path) -> anyhow::Result<()> {
        anyhow::bail!("there are no files here")
    }
}

/// So many bytes, compressible in part, the same for the same seed.
fn bytes(size: usize, mut seed: u64) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed.to_be_bytes()[0]
    };
    let words: Vec<Vec<u8>> = (0..200).map(|_| (0..=next() % 20).map(|_| next()).collect()).collect();
    let mut bytes = Vec::with_capacity(size + 20);
    while bytes.len() < size {
        bytes.extend_from_slice(&words[usize::from(next()) % words.len()]);
    }
    bytes.truncate(size);
    bytes
}

fn through(compression: Compression, threads: usize, layers: &[Vec<u8>]) -> (Vec<Vec<u8>>, Vec<Written>) {
    let mut blobs = Memory::default();
    let mut written = Vec::new();
    let numbers: Vec<_> = (0..layers.len()).collect();
    let produce = |i: usize, output: &mut Layer<'_>| layers[i].chunks(70_001).try_for_each(|chunk| output.put(chunk));
    let on = |step: Step, _: &mut dyn Blobs| {
        match step {
            Step::Before(next) => assert_eq!(next, written.len()),
            Step::Done(i, layer) => {
                assert_eq!(i, written.len());
                written.push(*layer);
            }
        }
        Ok(())
    };
    run(compression, threads, &numbers, &mut blobs, &Interrupt::default(), produce, on).unwrap();
    for ((blob, digest), layer) in blobs.blobs.iter().zip(&written) {
        assert_eq!(Digest::of(blob), layer.blob.digest);
        assert_eq!(digest.as_ref(), Some(&layer.blob.digest));
        assert_eq!(layer.blob.size, blob.len() as u64);
    }
    (blobs.blobs.into_iter().map(|(blob, _)| blob).collect(), written)
}

fn unpacked(compression: Compression, blob: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match compression {
        // Of one member only: not every program reads more.
        Compression::Gzip(_) => _ = flate2::read::GzDecoder::new(blob).read_to_end(&mut bytes).unwrap(),
        Compression::Zstd(_) => bytes = zstd::decode_all(blob).unwrap(),
        Compression::None => bytes = blob.to_vec(),
    }
    bytes
}

#[test]
fn what_comes_out_is_what_went_in_whatever_the_number_of_threads() {
    let part = 1 << 20;
    let sizes = [0, 1, part - 1, part, part + 1, 2 * part + 12_345];
    let layers: Vec<_> = sizes.iter().zip(1..).map(|(&size, seed)| bytes(size, seed)).collect();
    for compression in [Compression::Gzip(6), Compression::Zstd(3), Compression::None] {
        let (blobs, written) = through(compression, 1, &layers);
        for ((layer, blob), written) in layers.iter().zip(&blobs).zip(&written) {
            assert!(unpacked(compression, blob) == *layer, "{compression:?}, {} bytes", layer.len());
            assert_eq!(written.diff_id, Digest::of(layer));
        }
        for threads in [2, 1000] {
            assert!(through(compression, threads, &layers).0 == blobs, "{compression:?}, {threads} threads");
        }
    }
}

#[test]
fn the_first_failure_of_any_thread_ends_all() {
    let layers = [bytes(3 << 20, 1), bytes(9 << 20, 2)];
    let fails = |room: Option<usize>, produce: &(dyn Fn(usize) -> anyhow::Result<()> + Sync)| {
        let mut blobs = Memory { room, ..Memory::default() };
        let produce = |i: usize, output: &mut Layer<'_>| {
            produce(i)?;
            output.put(&layers[i])
        };
        run(Compression::None, 3, &[0, 1], &mut blobs, &Interrupt::default(), produce, |_, _| Ok(()))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(fails(Some(2 << 20), &|_| Ok(())), "full");
    assert_eq!(fails(None, &|i| if i == 1 { anyhow::bail!("cannot read") } else { Ok(()) }), "cannot read");
}
