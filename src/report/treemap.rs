//! `--report=html`: one file without any other, with the closure as a picture, a table and a little script.
//! It must never put a text into the page that is not escaped.

use std::fmt::Write;

use indicatif::DecimalBytes;

use super::sizes::{counted, duplicates};
use crate::closure::sizes::Sizes;
use crate::closure::treemap::{Rectangle, Tile, treemap};

/// The page, with `@NAME@` where something goes.
const PAGE: &str = include_str!("treemap.html");
const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 700.0;
/// How wide a character of the names is, about.
const CHARACTER: f64 = 6.3;
/// What a name needs downwards.
const LINE: f64 = 13.0;
/// Smaller tiles have no name in them.
const LEAST_NAME: usize = 4;
/// In degrees round the circle of colours: neighbours get colours far apart (the golden angle).
const HUE_STEP: usize = 137;

fn bytes(bytes: u64) -> String {
    DecimalBytes(bytes).to_string()
}

/// The whole page.
pub fn page(sizes: &Sizes) -> String {
    let whole = Rectangle { x: 0.0, y: 0.0, width: WIDTH, height: HEIGHT };
    let mut tiles = treemap(sizes, whole);
    // Those that lie in others are drawn over them.
    tiles.sort_by_key(|tile| tile.depth);
    let tiles: String = tiles.iter().map(|tile| drawn(tile, sizes)).collect();
    let rows: String = (0..sizes.paths.len()).map(|place| row(place, sizes)).collect();
    let data: Vec<_> = sizes
        .paths
        .iter()
        .map(|path| {
            let [own, closure, go] = [path.nar_size, path.closure_size, path.would_go].map(bytes);
            serde_json::json!([path.path, path.label, own, closure, go, path.chain])
        })
        .collect();
    // `</script>` in a text would end the script.
    let data = serde_json::Value::from(data).to_string().replace('<', "\\u003c");
    let mut equal = duplicates(&sizes.equal_files) + ".";
    equal[..1].make_ascii_uppercase();
    let largest = sizes.paths.first().map_or("nothing", |path| path.label.as_str());
    let values = [
        ("TOTAL", bytes(sizes.nar_size)),
        ("COUNT", counted(sizes.store_paths as u64, "store path")),
        ("LARGEST", escaped(largest)),
        ("WIDTH", WIDTH.to_string()),
        ("HEIGHT", HEIGHT.to_string()),
        ("TILES", tiles),
        ("ROWS", rows),
        ("EQUAL", escaped(&equal)),
        ("DATA", data),
    ];
    filled(PAGE, &values)
}

/// `page` with each `@NAME@` replaced; what is put in is not looked at again.
fn filled(page: &str, values: &[(&str, String)]) -> String {
    let mut text = String::with_capacity(page.len() * 2);
    let mut rest = page;
    while let Some(start) = rest.find('@') {
        text.push_str(&rest[..start]);
        rest = &rest[start + 1..];
        let value = values.iter().find_map(|(name, value)| Some((value, rest.strip_prefix(name)?.strip_prefix('@')?)));
        match value {
            Some((value, after)) => {
                text.push_str(value);
                rest = after;
            }
            None => text.push('@'),
        }
    }
    text + rest
}

fn drawn(tile: &Tile, sizes: &Sizes) -> String {
    let Tile { path, place: Rectangle { x, y, width, height }, depth, top, has_others } = *tile;
    let row = &sizes.paths[path];
    let lightness = 78 + (depth % 3) * 6;
    let fill = if depth == 0 && has_others && row.chain.len() == 1 {
        "#ddd".to_owned()
    } else {
        format!("hsl({} 65% {lightness}%)", top * HUE_STEP % 360)
    };
    let mut text = String::new();
    let title = format!("{} {}, {} would go", row.label, bytes(row.nar_size), bytes(row.would_go));
    let _ = writeln!(
        text,
        r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{fill}" data-n="{path}"><title>{}</title></rect>"#,
        escaped(&title)
    );
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a page is not that wide")]
    let room = ((width - 6.0).max(0.0) / CHARACTER) as usize;
    let name = if room < row.label.len() { row.label.get(..room.saturating_sub(1)) } else { Some(row.label.as_str()) };
    if let Some(name) = name.filter(|name| height >= LINE && name.len() >= LEAST_NAME) {
        let cut = if name.len() < row.label.len() { "…" } else { "" };
        let _ = writeln!(text, r#"<text x="{:.1}" y="{:.1}">{}{cut}</text>"#, x + 3.0, y + 11.0, escaped(name));
        if !has_others && height >= 2.0 * LINE {
            let size = bytes(row.nar_size);
            if size.len() <= room {
                let _ = writeln!(text, r#"<text x="{:.1}" y="{:.1}">{size}</text>"#, x + 3.0, y + 11.0 + LINE);
            }
        }
    }
    text
}

fn row(place: usize, sizes: &Sizes) -> String {
    let path = &sizes.paths[place];
    let [own, closure, go] = [path.nar_size, path.closure_size, path.would_go].map(bytes);
    let above = path.chain.split_last().map_or(&[][..], |(_, above)| above);
    let why: Vec<_> = above.iter().map(|&link| escaped(&sizes.paths[link].label)).collect();
    let why = if why.is_empty() { "the profile".to_owned() } else { why.join(" → ") };
    format!(
        "<tr data-n=\"{place}\"><td class=\"n\">{own}<td class=\"n\">{closure}<td class=\"n\">{go}<td>{}\
         <td class=\"why\">{why}\n",
        escaped(&path.label)
    )
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::closure::sizes::tests::world;

    #[test]
    fn the_page_has_each_path_once_in_the_picture_and_once_in_the_table() {
        let page = page(&world());
        for place in 0..6 {
            assert_eq!(page.matches(&format!("data-n=\"{place}\"")).count(), 2, "{place}");
        }
        assert!(page.contains("<b id=\"largest\">python3-3.11.2</b>"));
        assert!(page.contains("<title>python3-3.11.2 100 B, 130 B would go</title>"), "{page}");
        assert!(page.contains("<h1>196 B in 6 store paths</h1>"));
        for outside in ["http:", "https:", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(outside), "`{outside}` reaches out of the file");
        }
        let left: Vec<_> = page.split('@').collect();
        assert_eq!(left.len(), 1, "a place was not filled");
    }

    #[test]
    fn texts_cannot_end_what_they_stand_in() {
        let mut sizes = world();
        sizes.paths[0].path = "/a\"</script><b>&".into();
        sizes.paths[0].label = "<i>@DATA@".into();
        let page = page(&sizes);
        assert_eq!(page.matches("</script>").count(), 1);
        assert!(page.contains("&lt;i&gt;@DATA@") && !page.contains("<i>"));
    }

    #[test]
    fn nothing_is_a_page_too() {
        let mut sizes = world();
        sizes.paths.clear();
        assert!(page(&sizes).contains("The largest is <b id=\"largest\">nothing</b>"));
    }
}
