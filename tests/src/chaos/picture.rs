//! Draws a run: who was primary, who held the lease, what was done to them, and what the clients saw.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::Injected;
use super::history::{Outcome, Request};
use super::nemesis::describe;
use super::observer::{Lease, Role, Track};
use super::report::Report;
use super::schedule::Victim;

/// Where the lanes begin; the labels stand left of it.
const LEFT: f64 = 236.0;
const RIGHT: f64 = 24.0;
const FONT: &str = "font-family=\"Helvetica, Arial, sans-serif\"";

const GREEN: &str = "#4c9f70";
const ORANGE: &str = "#e8963a";
const GREY: &str = "#b9bec6";
const RED: &str = "#c8321f";
const INK: &str = "#22262d";
const FAINT: &str = "#6b7280";
const GOLD: &str = "#d9a400";
const FAULT: &str = "#7d5ba6";

fn colour(role: Role) -> &'static str {
    match role {
        Role::Primary => "#1f5fa8",
        Role::Streaming => "#a9cdee",
        Role::Replica => "#f2dd9e",
        Role::Silent => "#5d636e",
        Role::Down => "#e3e5e9",
    }
}

/// A page with the picture and, below it, what was done and what was found.
pub fn html(report: &Report) -> String {
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Chaos run, seed {}</title>\n\
         <style>body {{ font: 14px/1.5 Helvetica, Arial, sans-serif; color: {INK}; margin: 16px }} svg {{ max-width: 100%; \
         height: auto }} td, th {{ padding: 1px 12px 1px 0; text-align: left; vertical-align: top }}</style>\n",
        report.seed
    );
    text.push_str(&svg(report));
    let findings = report.findings();
    if !findings.is_empty() {
        text.push_str("<h2>What was found</h2>\n<ul>\n");
        for line in &findings {
            let _ = writeln!(text, "<li>{}</li>", escape(line));
        }
        text.push_str("</ul>\n");
    }
    text.push_str("<h2>What was done</h2>\n<table><tr><th>from</th><th>to</th><th></th></tr>\n");
    for one in &report.injected {
        let (from, to) = (one.begun.as_secs_f64(), one.healed.as_secs_f64());
        let _ = writeln!(text, "<tr><td>{from:.1} s</td><td>{to:.1} s</td><td>{}</td></tr>", escape(&describe(one)));
    }
    text.push_str("</table>\n</html>\n");
    text
}

/// The picture alone.
pub fn svg(report: &Report) -> String {
    let mut canvas = Canvas::new(report.length);
    canvas.head(report);
    canvas.legend();
    let top = canvas.y;
    canvas.clients(report);
    canvas.leaders(report);
    for (index, name) in report.names.iter().enumerate() {
        canvas.member(name, report.roles.get(index).map_or(&[], Vec::as_slice), &report.lease);
    }
    canvas.store(&report.lease);
    canvas.faults(&report.injected);
    canvas.axis(top);
    canvas.marks(report, top);
    canvas.finish()
}

struct Canvas {
    text: String,
    /// Drawn below everything else: what spans all lanes.
    ground: String,
    /// Where the next lane begins.
    y: f64,
    /// Where the heading of the members stands.
    members: f64,
    width: f64,
    length: Duration,
}

impl Canvas {
    fn new(length: Duration) -> Self {
        // At least two pixels for a second, so that long runs stay readable.
        let width = (LEFT + RIGHT + 2.0 * length.as_secs_f64()).max(1500.0);
        Self { text: String::new(), ground: String::new(), y: 34.0, members: 0.0, width, length }
    }

    fn x(&self, at: Duration) -> f64 {
        LEFT + (self.width - LEFT - RIGHT) * (at.as_secs_f64() / self.length.as_secs_f64().max(1.0)).min(1.0)
    }

    fn label(&mut self, (x, y): (f64, f64), size: u32, fill: &str, extra: &str, text: &str) {
        let text = escape(text);
        let _ = writeln!(
            self.text,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" fill=\"{fill}\" {extra}>{text}</text>"
        );
    }

    /// A box; `tip` shows when the pointer rests on it.
    fn bar(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), fill: &str, tip: &str) {
        let title = if tip.is_empty() { String::new() } else { format!("<title>{}</title>", escape(tip)) };
        let _ = writeln!(
            self.text,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\">{title}</rect>"
        );
    }

    /// A line through all lanes, below them.
    fn upright(&mut self, at: Duration, (top, bottom): (f64, f64), style: &str) {
        let x = self.x(at);
        let _ = writeln!(self.ground, "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\" {style}/>");
    }

    fn lane_name(&mut self, baseline: f64, name: &str) {
        self.label((LEFT - 12.0, baseline), 13, INK, "text-anchor=\"end\"", name);
    }

    fn section(&mut self, name: &str) {
        self.y += 22.0;
        let y = self.y;
        self.label((16.0, y), 12, FAINT, "font-weight=\"bold\" letter-spacing=\"0.5\"", name);
        self.y += 6.0;
    }

    fn head(&mut self, report: &Report) {
        let title = format!("pgward under chaos, seed {}", report.seed);
        self.label((16.0, self.y), 22, INK, "font-weight=\"bold\"", &title);
        let fill = if report.is_good() { "#2f7a4d" } else { RED };
        self.label((16.0, self.y + 26.0), 16, fill, "font-weight=\"bold\"", &format!("Verdict: {}", report.headline()));
        self.y += 46.0;
        for line in report.numbers() {
            self.label((16.0, self.y), 13, INK, "", &line);
            self.y += 17.0;
        }
        for line in report.findings().iter().take(6) {
            self.label((16.0, self.y), 13, RED, "", line);
            self.y += 17.0;
        }
    }

    fn legend(&mut self) {
        self.y += 8.0;
        let entries = [
            (colour(Role::Primary), "primary"),
            (colour(Role::Streaming), "replica, streaming"),
            (colour(Role::Replica), "replica, receiving nothing"),
            (colour(Role::Silent), "does not answer"),
            (colour(Role::Down), "down"),
            (GOLD, "holds the leader lease"),
            (FAULT, "fault"),
            (GREEN, "acknowledged"),
            (ORANGE, "outcome unknown"),
            (GREY, "failed: no primary found"),
        ];
        let mut x = 16.0;
        for (fill, name) in entries {
            let y = self.y;
            self.bar((x, y - 10.0), (12.0, 12.0), fill, "");
            self.label((x + 17.0, y), 12, INK, "", name);
            x += 36.0 + 6.9 * name.len() as f64;
        }
        self.y += 4.0;
    }

    /// Appends for each second: what became of them, one above the other.
    fn clients(&mut self, report: &Report) {
        self.section("APPENDS PER SECOND");
        let seconds = usize::try_from(self.length.as_secs()).unwrap_or(0) + 1;
        let mut bins = vec![[0_u32; 3]; seconds];
        for operation in report.operations.iter().filter(|o| matches!(o.request, Request::Append(_))) {
            let index = match operation.outcome {
                Outcome::Done { .. } => 0,
                Outcome::Unknown => 1,
                Outcome::Failed => 2,
            };
            let second = usize::try_from(operation.ended.as_secs()).unwrap_or(usize::MAX);
            if let Some(bin) = bins.get_mut(second) {
                bin[index] += 1;
            }
        }
        let height = 76.0;
        let most = bins.iter().map(|bin| bin.iter().sum::<u32>()).max().unwrap_or(1).max(1);
        let bottom = self.y + height;
        let scale = (height - 6.0) / f64::from(most);
        for (second, bin) in bins.iter().enumerate() {
            let from = self.x(Duration::from_secs(second as u64));
            let width = self.x(Duration::from_secs(second as u64 + 1)) - from;
            let tip = format!("{second} s: {} acknowledged, {} unknown, {} failed", bin[0], bin[1], bin[2]);
            let mut y = bottom;
            for (count, fill) in bin.iter().zip([GREEN, ORANGE, GREY]) {
                // What happened at all must be seen, however little it was.
                let part = if *count == 0 { 0.0 } else { (f64::from(*count) * scale).max(3.0) };
                if part > 0.0 {
                    y -= part;
                    self.bar((from, y), ((width - 0.6).max(0.6), part), fill, &tip);
                }
            }
        }
        self.label((LEFT - 12.0, self.y + 10.0), 11, FAINT, "text-anchor=\"end\"", &most.to_string());
        self.label((LEFT - 12.0, bottom), 11, FAINT, "text-anchor=\"end\"", "0");
        self.y = bottom;
    }

    /// Who acknowledged first on each timeline.
    fn leaders(&mut self, report: &Report) {
        self.section("MEMBERS");
        self.members = self.y - 6.0;
        self.y += 12.0;
        let Some(verdict) = &report.verdict else { return };
        let mut reigns = verdict.reigns.clone();
        reigns.sort_by_key(|reign| reign.first);
        let mut free_from = LEFT;
        for reign in reigns {
            let name = report.names.get(reign.node).map_or("?", String::as_str);
            let x = self.x(reign.first);
            let text = format!("{name}, timeline {}", reign.timeline);
            // Where two are close, the short form, so that they do not cover each other.
            let text = if x < free_from { String::new() } else { text };
            let y = self.y;
            if !text.is_empty() {
                free_from = x + 6.4 * text.len() as f64 + 8.0;
                self.label((x + 3.0, y - 2.0), 11, colour(Role::Primary), "", &text);
            }
            self.bar(
                (x - 0.8, y - 11.0),
                (1.6, 13.0),
                colour(Role::Primary),
                &format!("{name} first acknowledged here"),
            );
        }
        self.y += 6.0;
    }

    fn member(&mut self, name: &str, roles: &[(Duration, Role)], lease: &Track<Lease>) {
        let y = self.y;
        self.lane_name(y + 15.0, name);
        for (index, (from, role)) in roles.iter().enumerate() {
            let until = roles.get(index + 1).map_or(self.length, |(next, _)| *next);
            let (x, end) = (self.x(*from), self.x(until));
            let tip = format!("{name} {role:?} from {:.1} s to {:.1} s", from.as_secs_f64(), until.as_secs_f64());
            self.bar((x, y), ((end - x).max(0.5), 20.0), colour(*role), &tip);
        }
        let held = |lease: &Lease| matches!(lease, Lease::Held(holder) if holder == name);
        for (index, (from, _)) in lease.iter().enumerate().filter(|(_, (_, lease))| held(lease)) {
            let next = lease.get(index + 1);
            let (x, end) = (self.x(*from), self.x(next.map_or(self.length, |(next, _)| *next)));
            self.bar((x, y + 21.0), ((end - x).max(0.5), 5.0), GOLD, &format!("{name} holds the leader lease"));
            if next.is_some_and(|(_, lease)| *lease == Lease::Free) {
                let _ = writeln!(
                    self.text,
                    "<path d=\"M {end:.1} {:.1} l -5 9 l 10 0 z\" fill=\"{RED}\"><title>lease over</title></path>",
                    y + 19.0
                );
            }
        }
        self.y += 36.0;
    }

    /// When nobody held the key, and when etcd did not answer.
    fn store(&mut self, lease: &Track<Lease>) {
        let y = self.y;
        self.lane_name(y + 11.0, "leader key");
        for (index, (from, state)) in lease.iter().enumerate() {
            let until = lease.get(index + 1).map_or(self.length, |(next, _)| *next);
            let (x, end) = (self.x(*from), self.x(until));
            let (fill, tip) = match state {
                Lease::Held(holder) => ("#f6e6b0", format!("held by {holder}")),
                Lease::Free => (RED, "free".to_owned()),
                Lease::Unknown => (colour(Role::Silent), "etcd does not answer".to_owned()),
            };
            self.bar((x, y), ((end - x).max(1.0), 14.0), fill, &tip);
        }
        self.y += 17.0;
        let note = "pale: held; red: free, the red triangle marks whose lease was over; dark: etcd does not answer";
        let y = self.y + 9.0;
        self.label((LEFT, y), 11, FAINT, "", note);
        self.y += 8.0;
    }

    /// One lane for each kind of fault, in the order in which they came.
    fn faults(&mut self, injected: &[Injected]) {
        self.section("FAULTS");
        let mut lanes: Vec<&'static str> = Vec::new();
        let mut steps: BTreeMap<&'static str, Vec<&Injected>> = BTreeMap::new();
        for one in injected {
            let name = one.step.fault.name();
            if !lanes.contains(&name) {
                lanes.push(name);
            }
            steps.entry(name).or_default().push(one);
        }
        for (number, name) in lanes.into_iter().enumerate() {
            let y = self.y;
            if number % 2 == 0 {
                let (x, width) = (LEFT, self.width - LEFT - RIGHT);
                self.bar((x, y), (width, 20.0), "#f4f2f8", "");
            }
            self.lane_name(y + 14.0, name);
            for one in steps.get(name).into_iter().flatten() {
                self.fault(one);
            }
            self.y += 20.0;
        }
    }

    fn fault(&mut self, one: &Injected) {
        let y = self.y;
        let (x, end) = (self.x(one.begun), self.x(one.healed));
        let left_out = one.note.starts_with("left out");
        let tip = format!("{:.1} s to {:.1} s: {}", one.begun.as_secs_f64(), one.healed.as_secs_f64(), describe(one));
        let width = (end - x).max(4.0);
        self.bar((x, y + 4.0), (width, 12.0), if left_out { GREY } else { FAULT }, &tip);
        let letter = if one.hits_store() { "e" } else { "n" };
        let mut hosts: Vec<String> = one.hosts.iter().map(|host| format!("{letter}{}", host + 1)).collect();
        hosts.sort();
        let role = match one.step.victim {
            Victim::Primary => " primary",
            Victim::Replica(_) => " replica",
            Victim::SmallDisk => " small disk",
            Victim::StoreLeader => " etcd leader",
            Victim::StoreQuorum => " etcd quorum",
        };
        let text = format!("{}{role}{}", hosts.join(", "), if left_out { " (left out)" } else { "" });
        // Beside the bar: on its left where there is no room on the right.
        if x + width + 120.0 > self.width - RIGHT {
            self.label((x - 4.0, y + 14.0), 11, INK, "text-anchor=\"end\"", &text);
        } else {
            self.label((x + width + 4.0, y + 14.0), 11, INK, "", &text);
        }
    }

    fn axis(&mut self, top: f64) {
        self.y += 8.0;
        let bottom = self.y;
        let step =
            [10_u64, 20, 30, 60, 120, 300].into_iter().find(|step| self.length.as_secs() / step <= 24).unwrap_or(600);
        for second in (0..=self.length.as_secs()).step_by(usize::try_from(step).unwrap_or(10)) {
            let at = Duration::from_secs(second);
            self.upright(at, (top + 8.0, bottom), "stroke=\"#e1e4e8\" stroke-width=\"1\"");
            let x = self.x(at);
            self.label((x, bottom + 14.0), 11, FAINT, "text-anchor=\"middle\"", &format!("{second} s"));
        }
        self.y += 20.0;
    }

    /// What concerns all lanes: changes of the leader, the end of the faults, anomalies.
    fn marks(&mut self, report: &Report, top: f64) {
        let bottom = self.y - 20.0;
        let reigns = report.verdict.iter().flat_map(|verdict| &verdict.reigns);
        for reign in reigns {
            let style = format!("stroke=\"{}\" stroke-width=\"1\" stroke-dasharray=\"2 3\"", colour(Role::Primary));
            self.upright(reign.first, (top + 8.0, bottom), &style);
        }
        for at in [report.healed, report.recovered] {
            self.upright(at, (top + 8.0, bottom), &format!("stroke=\"{GREEN}\" stroke-width=\"1.5\""));
        }
        let later = report.recovered.saturating_sub(report.healed).as_secs_f64();
        let text = format!("all faults undone; whole again {later:.1} s later");
        let (x, y) = (self.x(report.healed) - 4.0, self.members);
        self.label((x, y), 11, "#2f7a4d", "text-anchor=\"end\"", &text);
        for anomaly in report.verdict.iter().flat_map(|verdict| &verdict.anomalies).take(100) {
            let x = self.x(anomaly.at());
            let _ = writeln!(
                self.text,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\" stroke=\"{RED}\" \
                 stroke-width=\"1.5\"><title>{}</title></line>",
                escape(&anomaly.to_string())
            );
        }
    }

    fn finish(self) -> String {
        let (width, height) = (self.width, self.y + 6.0);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" {FONT}>\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{}{}</svg>\n",
            self.ground, self.text
        )
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
