//! Pictures by the means of terminals. What is drawn was made anew from pixels: no byte of a picture from
//! somebody else reaches the terminal.

use base64::{Engine, engine::general_purpose::STANDARD};
use fastchat_client::files::picture::{Made, Wish};
use std::{collections::BTreeSet, fmt::Write};

/// Limit: bytes of one of kitty's pieces.
const KITTY_PIECE: usize = 4096;
/// Shades of each colour in sixel: 6 x 6 x 6 of 256 that terminals have.
const SHADES: u16 = 6;
/// Pixels of a cell, where the terminal does not say.
const CELL: (u16, u16) = (8, 16);

/// How a picture gets onto a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Protocol {
    /// Kitty's graphics protocol.
    Kitty,
    /// iTerm2's inline images.
    Iterm,
    /// DEC's sixels.
    Sixel,
    /// Coloured half blocks, which every terminal with colours can.
    Blocks,
}

/// Cells and pixels of the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    columns: u16,
    rows: u16,
    cell: (u16, u16),
}

/// What this terminal can, by what it says of itself in the environment.
pub(super) fn detect() -> Protocol {
    let of = |name: &str| std::env::var(name).unwrap_or_default();
    by_environment(
        &of("TERM"),
        &of("TERM_PROGRAM"),
        !of("KITTY_WINDOW_ID").is_empty(),
        !of("TMUX").is_empty(),
    )
}

fn by_environment(term: &str, program: &str, kitty: bool, multiplexed: bool) -> Protocol {
    match (term, program) {
        // Between program and terminal, these let only characters through.
        _ if multiplexed || term.starts_with("screen") || term.starts_with("tmux") => Protocol::Blocks,
        _ if kitty || term.contains("kitty") || term.contains("ghostty") || program == "ghostty" => {
            Protocol::Kitty
        }
        (_, "iTerm.app" | "WezTerm" | "vscode") => Protocol::Iterm,
        _ if term.contains("sixel") || term.starts_with("foot") || term.starts_with("mlterm") => {
            Protocol::Sixel
        }
        _ => Protocol::Blocks,
    }
}

/// The terminal's size, or a usual one.
pub(super) fn size() -> Size {
    let usual = Size { columns: 80, rows: 24, cell: CELL };
    let Ok(found) = rustix::termios::tcgetwinsize(std::io::stdout()) else { return usual };
    if found.ws_col == 0 || found.ws_row == 0 {
        return usual;
    }
    let cell = (found.ws_xpixel / found.ws_col, found.ws_ypixel / found.ws_row);
    let cell = if cell.0 == 0 || cell.1 == 0 { CELL } else { cell };
    Size { columns: found.ws_col, rows: found.ws_row, cell }
}

/// What is to be made of a picture so that it fits.
pub(super) fn wish(protocol: Protocol, Size { columns, rows, cell }: Size) -> Wish {
    // The line below the picture stays in sight.
    let rows = rows.saturating_sub(2).max(1);
    let (width, height) = (columns.saturating_mul(cell.0).min(2048), rows.saturating_mul(cell.1).min(2048));
    match protocol {
        Protocol::Blocks => Wish::Pixels(columns.min(512), rows.saturating_mul(2).min(512)),
        Protocol::Sixel => Wish::Pixels(width, height),
        Protocol::Kitty | Protocol::Iterm => Wish::Png(width, height),
    }
}

/// What is to be written.
pub(super) fn draw(protocol: Protocol, made: &Made) -> String {
    match protocol {
        Protocol::Kitty => kitty(&made.bytes),
        Protocol::Iterm => iterm(&made.bytes),
        Protocol::Sixel => sixel(made),
        Protocol::Blocks => blocks(made),
    }
}

fn kitty(png: &[u8]) -> String {
    let text = STANDARD.encode(png);
    let pieces: Vec<&str> =
        text.as_bytes().chunks(KITTY_PIECE).filter_map(|piece| std::str::from_utf8(piece).ok()).collect();
    let mut out = String::new();
    for (at, piece) in pieces.iter().enumerate() {
        let head = if at == 0 { "a=T,f=100,q=2," } else { "" };
        let more = u8::from(at + 1 < pieces.len());
        let _ = write!(out, "\x1b_G{head}m={more};{piece}\x1b\\");
    }
    out
}

fn iterm(png: &[u8]) -> String {
    format!("\x1b]1337;File=inline=1;size={}:{}\x07", png.len(), STANDARD.encode(png))
}

/// Two pixels a character, one above the other.
fn blocks(made: &Made) -> String {
    let width = usize::from(made.width);
    let rows: Vec<&[u8]> = made.bytes.chunks_exact(width * 4).collect();
    let mut out = String::new();
    for pair in rows.chunks(2) {
        for x in 0..width {
            let (above, below) = (colour(pair[0], x), pair.get(1).map(|row| colour(row, x)));
            let [r, g, b] = above;
            let _ = write!(out, "\x1b[38;2;{r};{g};{b}m");
            if let Some([r, g, b]) = below {
                let _ = write!(out, "\x1b[48;2;{r};{g};{b}m");
            }
            out.push('\u{2580}');
        }
        out.push_str("\x1b[0m\n");
    }
    out.pop();
    out
}

/// A pixel, in front of black.
fn colour(row: &[u8], x: usize) -> [u8; 3] {
    let pixel = &row[x * 4..x * 4 + 4];
    let alpha = u16::from(pixel[3]);
    [pixel[0], pixel[1], pixel[2]].map(|c| (u16::from(c) * alpha / 255) as u8)
}

fn sixel(made: &Made) -> String {
    let width = usize::from(made.width);
    let shade = |c: u8| u16::from(c) * (SHADES - 1) / 255;
    let rows: Vec<Vec<u16>> = made
        .bytes
        .chunks_exact(width * 4)
        .map(|row| {
            let index = |[r, g, b]: [u8; 3]| (shade(r) * SHADES + shade(g)) * SHADES + shade(b);
            (0..width).map(|x| index(colour(row, x))).collect()
        })
        .collect();
    let mut out = format!("\x1bP0;1q\"1;1;{};{}", made.width, made.height);
    for index in 0..SHADES * SHADES * SHADES {
        let percent = |c: u16| c * 100 / (SHADES - 1);
        let (r, g, b) = (index / SHADES / SHADES, index / SHADES % SHADES, index % SHADES);
        let _ = write!(out, "#{index};2;{};{};{}", percent(r), percent(g), percent(b));
    }
    for band in rows.chunks(6) {
        for index in band.iter().flatten().copied().collect::<BTreeSet<u16>>() {
            let _ = write!(out, "#{index}");
            let bits = (0..width)
                .map(|x| band.iter().zip(0..).map(|(row, bit)| u8::from(row[x] == index) << bit).sum::<u8>());
            repeated(&mut out, bits);
            out.push('$');
        }
        out.push('-');
    }
    out.push_str("\x1b\\");
    out
}

/// Sixels, with `!N` for more than three of a kind.
fn repeated(out: &mut String, bits: impl Iterator<Item = u8>) {
    let bits: Vec<u8> = bits.collect();
    for run in bits.chunk_by(|one, other| one == other) {
        let character = char::from(63 + run[0]);
        match run.len() {
            1..4 => (0..run.len()).for_each(|_| out.push(character)),
            more => drop(write!(out, "!{more}{character}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(width: u16, height: u16, pixels: &[[u8; 4]]) -> Made {
        Made { width, height, bytes: pixels.concat() }
    }

    #[test]
    fn terminals_are_known_by_what_they_say() {
        for (term, program, kitty, multiplexed, want) in [
            ("xterm-kitty", "", false, false, Protocol::Kitty),
            ("xterm-256color", "", true, false, Protocol::Kitty),
            ("xterm-256color", "iTerm.app", false, false, Protocol::Iterm),
            ("xterm-256color", "WezTerm", false, false, Protocol::Iterm),
            ("foot", "", false, false, Protocol::Sixel),
            ("xterm-kitty", "", true, true, Protocol::Blocks),
            ("tmux-256color", "iTerm.app", false, false, Protocol::Blocks),
            ("xterm-256color", "", false, false, Protocol::Blocks),
            ("", "", false, false, Protocol::Blocks),
        ] {
            assert_eq!(by_environment(term, program, kitty, multiplexed), want, "{term} {program}");
        }
    }

    #[test]
    fn half_blocks_have_two_pixels_each() {
        let picture = made(1, 3, &[[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 0]]);
        let want = "\x1b[38;2;255;0;0m\x1b[48;2;0;255;0m\u{2580}\x1b[0m\n\x1b[38;2;0;0;0m\u{2580}\x1b[0m";
        assert_eq!(draw(Protocol::Blocks, &picture), want);
    }

    #[test]
    fn sixels_are_six_pixels_high() {
        let picture = made(5, 1, &[[255, 255, 255, 255]; 5]);
        let drawn = draw(Protocol::Sixel, &picture);
        assert!(drawn.starts_with("\x1bP0;1q\"1;1;5;1#0;2;0;0;0#1;2;0;0;20"), "{drawn}");
        assert!(drawn.ends_with("#215!5@$-\x1b\\"), "{drawn}");
        let two = draw(Protocol::Sixel, &made(1, 7, &[[0, 0, 0, 255]; 7]));
        assert!(two.ends_with("#0~$-#0@$-\x1b\\"), "{two}");
    }

    #[test]
    fn kitty_gets_pieces_and_iterm_a_whole() {
        let picture = made(1, 1, &[]);
        let png = Made { bytes: vec![7; 4000], ..picture };
        let drawn = draw(Protocol::Kitty, &png);
        assert!(drawn.starts_with("\x1b_Ga=T,f=100,q=2,m=1;"), "{drawn}");
        assert_eq!(drawn.matches("\x1b_G").count(), 2);
        assert!(drawn.contains("\x1b_Gm=0;"));
        let drawn = draw(Protocol::Iterm, &png);
        assert!(drawn.starts_with("\x1b]1337;File=inline=1;size=4000:") && drawn.ends_with('\x07'));
    }
}
