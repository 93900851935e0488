//! Screens as text, each in a file of `golden/`. `GTHULHU_GOLDEN=write cargo test -p gthulhu-top` writes them anew: look
//! at what changed.

use std::path::Path;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

use super::*;
use crate::args::{By, Sort};
use crate::fixture;
use crate::sample::Sample;

const LOOK: Look = Look { utf8: true, color: true };

fn state(samples: &[Sample], keys: &str) -> State {
    let mut state = State::new(By::Groups, Sort::Delay, "");
    samples.iter().for_each(|sample| state.take(sample.clone()));
    for key in keys.chars() {
        let code = if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) };
        state.key(KeyEvent::new(code, KeyModifiers::NONE), 5);
    }
    state
}

fn drawn(state: &State, look: Look, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state, look)).unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let line = |y| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    let lines = (0..buffer.area.height).map(|y| line(y).trim_end().to_owned() + "\n");
    lines.collect()
}

#[track_caller]
fn looks_like(name: &str, state: &State, look: Look, (width, height): (u16, u16)) {
    let found = text(&drawn(state, look, width, height));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name).with_extension("txt");
    if std::env::var_os("GTHULHU_GOLDEN").is_some_and(|what| what == "write") {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert!(found == expected, "{name} looks like this:\n{found}\nand not like this:\n{expected}");
}

#[test]
fn the_first_page_fits_the_smallest_of_terminals_and_uses_a_large_one() {
    let twice = [fixture::sample(), fixture::sample()];
    looks_like("table", &state(&twice, ""), LOOK, (80, 24));
    looks_like("table-ascii", &state(&twice, "c"), Look { utf8: false, color: false }, (80, 24));
    looks_like("table-wide", &state(&[fixture::scheduled()], "jj"), LOOK, (140, 30));
    looks_like("table-short", &state(&twice, "m/a"), LOOK, (60, 12));
}

#[test]
fn threads_have_a_table_of_their_own() {
    looks_like("threads", &state(&[fixture::sample()], "4c"), LOOK, (80, 24));
}

#[test]
fn one_row_shows_its_histograms_and_who_made_it_wait() {
    looks_like("detail", &state(&[fixture::sample(), fixture::sample()], "c\n"), LOOK, (80, 24));
    looks_like("detail-thread", &state(&[fixture::sample()], "4c\n"), LOOK, (100, 40));
}

#[test]
fn the_scheduler_is_told_in_four_lines_and_on_a_page() {
    looks_like("scheduled", &state(&[fixture::scheduled()], ""), LOOK, (80, 24));
    looks_like("scheduler", &state(&[fixture::scheduled()], "p"), LOOK, (80, 24));
    looks_like("no-daemon", &state(&[fixture::sample()], "p"), LOOK, (80, 24));
}

#[test]
fn help_fits_into_eighty_by_twenty_four() {
    let help = state(&[fixture::sample()], "?");
    looks_like("help", &help, LOOK, (80, 24));
    assert_eq!(text(&drawn(&help, LOOK, 80, 24)).trim_end(), text(&drawn(&help, LOOK, 200, 60)).trim_end());
}

#[test]
fn many_cpus_are_folded() {
    looks_like("cpus-16", &state(&[fixture::with_cpus(16)], ""), LOOK, (80, 24));
    looks_like("cpus-512", &state(&[fixture::with_cpus(512)], ""), LOOK, (80, 24));
}

#[test]
fn every_cpu_is_somewhere_in_the_strip() {
    for cpus in [1, 2, 4, 5, 24, 25, 64, 129, 1024] {
        let text = text(&drawn(&state(&[fixture::with_cpus(cpus)], ""), LOOK, 80, 24));
        assert!(text.contains("DELAYp99") && text.contains("nginx.service"), "{cpus}: {text}");
        if cpus > 24 {
            assert!(text.contains(&format!(" {cpus} CPUs  ")), "{text}");
        }
    }
}

#[test]
fn nothing_breaks_at_any_size() {
    for keys in ["", "4", "\n", "4\n", "p", "?", "/xyz"] {
        for samples in [&[][..], &[fixture::scheduled()], &[fixture::with_cpus(300)]] {
            let state = state(samples, keys);
            for (width, height) in
                [(1, 1), (59, 12), (60, 11), (60, 12), (61, 13), (80, 24), (99, 19), (100, 20), (400, 100)]
            {
                let text = text(&drawn(&state, LOOK, width, height));
                let small = width < 60 || height < 12;
                assert!(small || text.contains("gthulhu top"), "{keys} {width} {height}: {text}");
                assert!(!text.contains("##"), "a number has no room: {text}");
                let _ = page_size(&state, width, height);
            }
        }
    }
}

#[test]
fn the_cursor_is_on_the_screen_wherever_it_is() {
    let mut many = fixture::sample();
    let one = many.groups[3].clone();
    for id in 0..100 {
        let mut group = one.clone();
        group.place.group.key = format!("unit {id}");
        group.place.group.name = format!("row-{id:03}.service");
        many.groups.push(group);
    }
    let mut state = state(&[many], "");
    let mut seen = 0;
    for _ in 0..state.rows.len() {
        let text = text(&drawn(&state, LOOK, 80, 24));
        let cursor = &state.rows[state.cursor()].name;
        let line = text.lines().find(|line| line.starts_with("> ")).unwrap();
        assert!(line.contains(if cursor.len() < 20 { cursor } else { &cursor[..4] }), "{cursor}: {text}");
        seen += 1;
        state.key(KeyEvent::new(KeyCode::Down, KeyModifiers::NONE), 5);
    }
    assert!(seen > 100);
    let size = page_size(&state, 80, 24);
    let text = text(&drawn(&state, LOOK, 80, 24));
    assert!(text.contains(&format!("rows {}-{seen} of {seen}", seen - size + 1)), "{text}");
}

#[test]
fn only_the_sixteen_colours_are_used_and_none_if_so_wished() {
    for keys in ["", "\n", "p", "4"] {
        let state = state(&[fixture::scheduled()], keys);
        let colors = |look| {
            let buffer = drawn(&state, look, 100, 30);
            buffer
                .content
                .iter()
                .flat_map(|cell| [cell.fg, cell.bg])
                .filter(|c| *c != Color::Reset)
                .collect::<Vec<_>>()
        };
        assert_eq!(colors(Look { color: false, ..LOOK }), []);
        let some = colors(LOOK);
        assert!(!some.is_empty(), "{keys}");
        assert!(
            some.iter().all(|c| [Color::Red, Color::Green, Color::Yellow, Color::Cyan].contains(c)),
            "{some:?}"
        );
    }
}

#[test]
fn ascii_is_ascii() {
    for keys in ["", "\n", "p", "4", "?"] {
        let state = state(&[fixture::scheduled(), fixture::scheduled()], keys);
        let text = text(&drawn(&state, Look { utf8: false, color: false }, 80, 24));
        assert!(text.is_ascii(), "{text}");
    }
}
