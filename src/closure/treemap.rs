//! A closure as rectangles: the area of each is what would go with the path, and in it lies what it keeps.
//! It must never decide how they are drawn.

use super::sizes::Sizes;

/// A rectangle; its origin is the upper left corner.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rectangle {
    /// From the left.
    pub x: f64,
    /// From the top.
    pub y: f64,
    /// To the right.
    pub width: f64,
    /// Downwards.
    pub height: f64,
}

/// What is drawn of a path; those that lie in it come after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tile {
    /// Its place in [`Sizes::paths`].
    pub path: usize,
    /// Where.
    pub place: Rectangle,
    /// How many tiles it lies in.
    pub depth: usize,
    /// The tile at the top in which it lies, by its path.
    pub top: usize,
    /// Whether others lie in it: then its name stands above them.
    pub has_others: bool,
}

/// Around what lies in a tile.
const MARGIN: f64 = 2.0;
/// For the name above what lies in a tile.
const TITLE: f64 = 14.0;

/// Lays out all paths of `sizes` in `place`.
pub fn treemap(sizes: &Sizes, place: Rectangle) -> Vec<Tile> {
    let mut kept: Vec<Vec<usize>> = vec![Vec::new(); sizes.paths.len()];
    let mut top = Vec::new();
    for (path, row) in sizes.paths.iter().enumerate() {
        match row.kept_by {
            Some(keeper) => kept[keeper].push(path),
            None => top.push(path),
        }
    }
    let mut tiles = Vec::new();
    let mut groups = vec![(top, place, 0, None)];
    while let Some((mut paths, place, depth, above)) = groups.pop() {
        paths.sort_by_key(|&path| (std::cmp::Reverse(sizes.paths[path].would_go), path));
        let areas: Vec<u64> = paths.iter().map(|&path| sizes.paths[path].would_go).collect();
        for (&path, rectangle) in paths.iter().zip(squarify(&areas, place)) {
            let top = above.unwrap_or(path);
            let inner = std::mem::take(&mut kept[path]);
            tiles.push(Tile { path, place: rectangle, depth, top, has_others: !inner.is_empty() });
            if !inner.is_empty() {
                // What is left free, in proportion, is the path's own.
                let frame = inset(rectangle);
                let inside: u64 = inner.iter().map(|&other| sizes.paths[other].would_go).sum();
                let share = ratio(inside, sizes.paths[path].would_go);
                let used = if frame.width > frame.height {
                    Rectangle { width: frame.width * share, ..frame }
                } else {
                    Rectangle { height: frame.height * share, ..frame }
                };
                // A profile is only a frame around what it holds.
                let is_profile = sizes.paths[path].chain.len() == 1;
                groups.push((inner, used, depth + 1, (!is_profile).then_some(top)));
            }
        }
    }
    tiles
}

fn inset(place: Rectangle) -> Rectangle {
    let title = if place.height > 2.0 * TITLE { TITLE } else { MARGIN.min(place.height / 4.0) };
    let side = MARGIN.min(place.width / 4.0);
    let bottom = MARGIN.min(place.height / 4.0);
    Rectangle {
        x: place.x + side,
        y: place.y + title,
        width: place.width - 2.0 * side,
        height: place.height - title - bottom,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a picture has fewer points than a double has digits")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Cuts `place` into rectangles of these areas, which must fall, as near to squares as they come row by row
/// (Bruls, Huizing and van Wijk, "Squarified Treemaps").
fn squarify(areas: &[u64], place: Rectangle) -> Vec<Rectangle> {
    let mut left = place;
    let mut rectangles = Vec::with_capacity(areas.len());
    let mut rest = areas;
    while !rest.is_empty() {
        let total: u64 = rest.iter().sum();
        let is_wide = left.width > left.height;
        let (long, short) = if is_wide { (left.width, left.height) } else { (left.height, left.width) };
        // A row stands across the longer side; one more is taken as long as that makes its worst one more square.
        let row_depth = |row: &[u64]| long * ratio(row.iter().sum(), total);
        let worst = |row: &[u64]| {
            let (sum, depth) = (row.iter().sum(), row_depth(row));
            row.iter().fold(1.0, |worst: f64, &area| {
                let length = short * ratio(area, sum);
                let longer = (length / depth).max(depth / length);
                if longer.is_nan() { worst } else { worst.max(longer) }
            })
        };
        let mut count = 1;
        while count < rest.len() && worst(&rest[..=count]) <= worst(&rest[..count]) {
            count += 1;
        }
        let (row, others) = rest.split_at(count);
        let (depth, sum) = (row_depth(row), row.iter().sum());
        let mut along = 0.0;
        for &area in row {
            let length = short * ratio(area, sum);
            rectangles.push(if is_wide {
                Rectangle { x: left.x, y: left.y + along, width: depth, height: length }
            } else {
                Rectangle { x: left.x + along, y: left.y, width: length, height: depth }
            });
            along += length;
        }
        left = if is_wide {
            Rectangle { x: left.x + depth, width: (left.width - depth).max(0.0), ..left }
        } else {
            Rectangle { y: left.y + depth, height: (left.height - depth).max(0.0), ..left }
        };
        rest = others;
    }
    rectangles
}

#[cfg(test)]
mod tests {
    use super::super::sizes::tests::world;
    use super::*;
    use proptest::prelude::*;

    const PAGE: Rectangle = Rectangle { x: 0.0, y: 0.0, width: 1000.0, height: 600.0 };

    fn is_within(inner: Rectangle, outer: Rectangle) -> bool {
        inner.x >= outer.x - 1e-6
            && inner.y >= outer.y - 1e-6
            && inner.x + inner.width <= outer.x + outer.width + 1e-6
            && inner.y + inner.height <= outer.y + outer.height + 1e-6
    }

    #[test]
    fn each_path_has_a_tile_inside_that_of_its_keeper() {
        let sizes = world();
        let tiles = treemap(&sizes, PAGE);
        let mut paths: Vec<_> = tiles.iter().map(|tile| tile.path).collect();
        paths.sort_unstable();
        assert_eq!(paths, [0, 1, 2, 3, 4, 5]);
        let tile_of = |path: usize| tiles.iter().find(|tile| tile.path == path).unwrap();
        for tile in &tiles {
            assert!(is_within(tile.place, PAGE), "{tile:?}");
            if let Some(keeper) = sizes.paths[tile.path].kept_by {
                assert!(is_within(tile.place, tile_of(keeper).place), "{tile:?}");
                assert_eq!(tile.depth, tile_of(keeper).depth + 1);
            }
        }
        assert_eq!(tile_of(5).place, PAGE, "the profile keeps everything");
        assert_eq!((tile_of(2).top, tile_of(4).top, tile_of(0).top), (0, 1, 0));
        assert!(tile_of(0).has_others && !tile_of(3).has_others);
    }

    proptest! {
        #[test]
        fn areas_are_in_proportion_and_nothing_overlaps(mut areas in prop::collection::vec(0_u64..1_000_000, 1..60)) {
            areas.sort_unstable_by(|a, b| b.cmp(a));
            areas[0] += 1;
            let rectangles = squarify(&areas, PAGE);
            prop_assert_eq!(rectangles.len(), areas.len());
            let total: u64 = areas.iter().sum();
            for (rectangle, &area) in rectangles.iter().zip(&areas) {
                prop_assert!(is_within(*rectangle, PAGE), "{:?}", rectangle);
                let expected = ratio(area, total) * PAGE.width * PAGE.height;
                prop_assert!((rectangle.width * rectangle.height - expected).abs() < 1e-3);
            }
            // Within the page and of its whole area together: so none lies on another.
            let sum: f64 = rectangles.iter().map(|r| r.width * r.height).sum();
            prop_assert!((sum - PAGE.width * PAGE.height).abs() < 1e-3);
            for (i, a) in rectangles.iter().enumerate() {
                for b in &rectangles[i + 1..] {
                    let across = (a.x + a.width).min(b.x + b.width) - a.x.max(b.x);
                    let down = (a.y + a.height).min(b.y + b.height) - a.y.max(b.y);
                    prop_assert!(across < 1e-6 || down < 1e-6 || across * down < 1e-3);
                }
            }
        }
    }
}
