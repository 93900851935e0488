//! One HTML file that shows a comparison. It needs nothing else: no network, no other file, no script.

mod charts;

use super::SCHEDULERS;
use super::record::Record;
use super::summary::{self, Better, Line, METRICS, Metric, Seen, short};
use std::fmt::Write as _;

const STYLE: &str = include_str!("page.css");

/// Less than this is noise, as a part.
const NOISE: f64 = 0.03;

/// The page, for boots and loads in this order.
pub(super) fn html(title: &str, setup: &str, all: &Record, order: &[(&'static str, &'static str)]) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n\
         <style>\n{STYLE}</style>\n<h1>{}</h1>\n",
        escaped(title),
        escaped(title)
    );
    let guest = setup.lines().find(|line| line.starts_with("Guest:")).unwrap_or_default();
    let _ = writeln!(
        out,
        "<p class=\"note\">{} Ratios are to {} in the same round of the same boot: medians, and between which they lie. \
         Where instructions count, microseconds are no latencies.</p>",
        escaped(guest),
        SCHEDULERS[0]
    );
    glance(&mut out, all, order);
    missing(&mut out, all);
    let mut last = "";
    for (boot, load) in order {
        if *boot != last {
            let _ = writeln!(out, "<h2 class=\"boot\" id=\"{boot}\">{}</h2>", escaped(boot_title(boot)));
            last = boot;
        }
        section(&mut out, all, boot, load);
    }
    let _ = writeln!(
        out,
        "<section><div class=\"head\"><h3>How it was measured</h3></div><pre>{}</pre></section>",
        escaped(setup.trim())
    );
    out.push_str("</html>\n");
    out
}

fn boot_title(boot: &str) -> &str {
    match boot {
        "path" => "One CPU, instructions counted: the length of the path",
        "wakes" => "Two CPUs, instructions of both counted on one clock: how long who wakes up waits",
        "parallel" => "Two CPUs, in the host's time: work at the same time",
        other => other,
    }
}

/// What could end a text, or a value between quotes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Which way a ratio goes; `same` where that is small, or the pairs do not agree.
pub(super) fn judged(line: &Line, better: Better) -> &'static str {
    match (line.ratio.map_or(1.0, |[ratio, ..]| ratio), better) {
        (r, _) if (r - 1.0).abs() < NOISE || !line.is_sure() => "same",
        (r, Better::Less) if r < 1.0 => "better",
        (r, Better::More) if r > 1.0 => "better",
        _ => "worse",
    }
}

/// All ratios in one table.
fn glance(out: &mut String, all: &Record, order: &[(&'static str, &'static str)]) {
    out.push_str(
        "<section><div class=\"head\"><h3>At a glance</h3><span class=\"note\">medians of ratios of pairs; \
         ▼ less is better, ▲ more is better; in colour where nine pairs of ten agree</span></div><div class=\"scroll\"><table><thead><tr><th>load</th>",
    );
    for scheduler in SCHEDULERS {
        let _ = write!(out, "<th>{}</th>", escaped(scheduler));
    }
    out.push_str("</tr></thead><tbody>\n");
    let mut last = "";
    for (boot, load) in order {
        if *boot != last {
            let columns = SCHEDULERS.len() + 1;
            let _ = writeln!(
                out,
                "<tr class=\"group\"><td colspan=\"{columns}\">{}</td></tr>",
                escaped(boot_title(boot))
            );
            last = boot;
        }
        for metric in METRICS.iter().filter(|metric| metric.load == *load) {
            glance_row(out, &summary::lines(all, boot, metric), boot, metric);
        }
    }
    out.push_str("</tbody></table></div></section>\n");
}

fn glance_row(out: &mut String, lines: &[Line], boot: &str, metric: &Metric) {
    let way = if metric.better == Better::Less { "▼" } else { "▲" };
    let _ = write!(
        out,
        "<tr><td><a href=\"#{boot}-{}\">{}</a> <span class=\"dim\">{} {way}</span></td>",
        metric.load,
        escaped(metric.load),
        escaped(metric.title)
    );
    for (column, scheduler) in SCHEDULERS.iter().enumerate() {
        match lines.iter().find(|line| line.scheduler == *scheduler) {
            // The one that others are measured against: its figure.
            Some(line) if column == 0 => {
                let _ = write!(out, "<td class=\"dim\">{} {}</td>", short(line.median), escaped(metric.unit));
            }
            Some(line @ Line { ratio: Some([ratio, least, most]), median, count, agree, .. }) => {
                let title = format!(
                    "{} {}, {least:.2} to {most:.2} in {count} pairs, {:.0} % of them on this side of 1",
                    short(*median),
                    metric.unit,
                    100.0 * agree
                );
                let _ = write!(
                    out,
                    "<td class=\"{}\" title=\"{}\">{ratio:.2}</td>",
                    judged(line, metric.better),
                    escaped(&title)
                );
            }
            _ => out.push_str("<td class=\"none\">no figure</td>"),
        }
    }
    out.push_str("</tr>\n");
}

fn missing(out: &mut String, all: &Record) {
    let head = match all.problems.len() {
        0 => "Nothing was skipped, refused or ejected".to_owned(),
        n => format!("{n} missing: skipped, refused, ejected or failed"),
    };
    let _ = write!(
        out,
        "<section><div class=\"head\"><h3 class=\"{}\">{head}</h3></div>",
        if all.problems.is_empty() { "" } else { "warn" }
    );
    if !all.problems.is_empty() {
        out.push_str("<table class=\"problems\"><tbody>\n");
        for problem in &all.problems {
            let round = if problem.round == 0 { String::new() } else { format!(" {}", problem.round) };
            let or_all = |text: &str| if text.is_empty() { "all".to_owned() } else { escaped(text) };
            let _ = writeln!(
                out,
                "<tr><td><b>{}</b></td><td>{}{round}</td><td>{}</td><td class=\"text\">{}</td></tr>",
                escaped(&problem.kind),
                or_all(&problem.load),
                or_all(&problem.scheduler),
                escaped(&problem.text)
            );
        }
        out.push_str("</tbody></table>");
    }
    out.push_str("</section>\n");
}

fn section(out: &mut String, all: &Record, boot: &str, load: &str) {
    let _ = writeln!(
        out,
        "<section id=\"{boot}-{load}\"><div class=\"head\"><h3>{}</h3><span class=\"note\">{}</span></div>",
        escaped(load),
        escaped(summary::describe(load))
    );
    let metrics: Vec<(&Metric, Vec<Line>)> = METRICS
        .iter()
        .filter(|metric| metric.load == load)
        .map(|metric| (metric, summary::lines(all, boot, metric)))
        .filter(|(_, lines)| !lines.is_empty())
        .collect();
    if metrics.is_empty() {
        out.push_str("<p class=\"warn\">Not measured; the reason is above.</p></section>\n");
        return;
    }
    out.push_str("<div class=\"charts\">\n");
    for (metric, lines) in &metrics {
        charts::bars(out, metric, lines);
    }
    charts::tails(out, all, boot, load);
    out.push_str("</div>\n");
    observed(out, &summary::seen(all, boot, load));
    charts::strips(out, all, boot, load);
    out.push_str("</section>\n");
}

fn observed(out: &mut String, seen: &[Seen]) {
    if seen.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "<h4>What the observer saw</h4><div class=\"scroll\"><table class=\"seen\"><thead><tr><th></th>\
         <th>wakeups/s</th><th>wake to run p50</th><th>p99</th><th>idle</th>\
         <th title=\"idle while a task waits that may run there\">idle while work waits</th>\
         <th title=\"in stretches of more than 100 us: the CPU was not told\">more than 100 us</th><th>longest</th>\
         <th>switches to the agent</th><th title=\"by the daemon's own count\">its own count</th>\
         <th title=\"the agent's thread, of one CPU's time\">agent's share of a CPU</th>\
         <th title=\"wakeups between which and the task's turn the agent ran\">wakeups after which it ran</th>\
         <th title=\"decisions, by the daemon's count, for each switch to the agent\">decisions a turn</th>\
         <th title=\"time in which the host kept the guest's CPUs waiting, per cent of one CPU\">host</th>\
         </tr></thead><tbody>"
    );
    let base = seen.first().filter(|one| one.scheduler == SCHEDULERS[0]);
    for one in seen {
        let us =
            |us: f64| if us >= 1e4 { format!("{:.1} ms", us / 1e3) } else { format!("{} us", short(us)) };
        let agent = |text: String| if one.agent_switches > 0.0 { text } else { "–".into() };
        let beyond = if one.is_beyond(base) { "worse" } else { "" };
        let own = one.own.filter(|_| one.agent_switches > 0.0);
        let _ = write!(
            out,
            "<tr><td>{}{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.1} %</td><td>{:.2} %</td>\
             <td class=\"{beyond}\">{:.2} %</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escaped(one.scheduler),
            if one.lost > 0.0 { " <b class=\"warn\">records lost</b>" } else { "" },
            short(one.wakeups_per_second),
            us(one.p50_us),
            us(one.p99_us),
            one.idle_percent,
            one.waiting_percent,
            one.untold_percent,
            us(one.longest_us),
            agent(short(one.agent_switches)),
            own.map_or("–".into(), |(_, activations)| short(activations)),
            agent(one.agent_percent.map_or("–".into(), |percent| format!("{percent:.0} %"))),
            agent(format!("{:.1} %", one.after_agent_percent)),
            own.map_or("–".into(), |(decisions, _)| short(decisions / one.agent_switches)),
            one.host_percent.map_or("–".into(), |percent| format!("{percent:.0} %")),
        );
    }
    out.push_str("</tbody></table></div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::record::Problem;

    #[test]
    fn what_others_say_cannot_break_the_page() {
        let mut all = summary::example();
        all.problems.push(Problem::skipped("pipe", "", "</section><script>alert('x')</script>"));
        let page = html("a <b> & \"c\"", "Guest: <i>", &all, &[("path", "pipe"), ("path", "request")]);
        assert!(!page.contains("<script") && !page.contains("<i>") && !page.contains("<stall>"), "{page}");
        assert!(!page.contains("perf<x>"), "names of processes too");
        assert!(page.contains("a &lt;b&gt; &amp; &quot;c&quot;"));
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)"));
    }

    #[test]
    fn the_page_needs_nothing_else() {
        let page = html("t", "", &summary::example(), &[("path", "pipe")]);
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        for open in ["section", "table", "svg", "div", "tr", "details"] {
            let count = |what: &str| page.matches(what).count();
            let opened = count(&format!("<{open}>")) + count(&format!("<{open} "));
            assert_eq!(opened, count(&format!("</{open}>")), "{open}");
        }
    }

    #[test]
    fn better_depends_on_the_metric() {
        let line = |ratio, agree| Line {
            scheduler: "x",
            count: 10,
            median: 1.0,
            ratio: Some([ratio, ratio, ratio]),
            agree,
            spread: 0.0,
        };
        assert_eq!(judged(&line(0.5, 1.0), Better::Less), "better");
        assert_eq!(judged(&line(0.5, 0.9), Better::More), "worse");
        assert_eq!(judged(&line(1.02, 1.0), Better::More), "same");
        assert_eq!(judged(&line(0.5, 0.8), Better::Less), "same", "the pairs do not agree");
    }
}
