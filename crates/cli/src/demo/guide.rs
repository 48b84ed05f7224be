//! What a demo tells its user once it is up.

use std::fmt::Write;
use std::path::Path;

use super::layout::Layout;
use super::preflight::Plan;
use super::state::{self, Member};

/// A word for a shell, quoted when it has to be.
pub(super) fn quote(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%=,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

fn quote_path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

/// Connects to whichever node accepts writes.
fn psql(layout: &Layout) -> String {
    let hosts = vec!["127.0.0.1"; layout.nodes().count()].join(",");
    let ports: Vec<_> = layout.nodes().map(|node| layout.postgres_address(node).port().to_string()).collect();
    let ports = ports.join(",");
    let pass_file = quote_path(&layout.pass_file());
    format!(
        "PGPASSFILE={pass_file} psql 'host={hosts} port={ports} user=postgres dbname=postgres target_session_attrs=read-write'"
    )
}

/// The whole text.
pub(super) fn text(plan: &Plan, members: &[Member], detached: bool) -> String {
    let layout = &plan.layout;
    let pgward = quote_path(&layout.executable());
    let dir = quote_path(&layout.dir);
    let ctl = format!("{pgward} ctl -c {}", quote_path(&layout.ctl_file()));
    let demo = |command: &str| format!("{pgward} demo {command} --dir {dir}");
    let leader = layout.nodes().find(|node| state::member_of(members, *node).is_some_and(Member::is_leader));
    let Some(primary) = leader.or_else(|| layout.nodes().next()) else { return String::new() };

    let mut text = String::new();
    let mut line = |words: &str| {
        let _ = writeln!(text, "{words}");
    };
    line("");
    line(&format!("{:<6}{:<18}{:<18}{}", "node", "PostgreSQL", "REST API", "role"));
    for node in layout.nodes() {
        let role = state::member_of(members, node).map_or("", |member| member.role.as_str());
        let (postgres, rest) = (layout.postgres_address(node).to_string(), layout.rest_address(node).to_string());
        line(&format!("{:<6}{postgres:<18}{rest:<18}{role}", node.to_string()));
    }
    line("");
    line("Look at it:");
    line(&format!("  {ctl} list"));
    line(&format!("  curl -s http://{}/cluster", layout.rest_address(primary)));
    line("Connect to the primary, wherever it is:");
    line(&format!("  {}", psql(layout)));
    line("");
    line(&format!("Try it, with `{ctl} list -w 1` open in a second terminal:"));
    line("  move the primary on purpose:");
    line(&format!("    {ctl} switchover --force"));
    line(&format!("  kill the PostgreSQL of {primary} (it comes back in place):"));
    line(&format!("    kill -9 $(head -n 1 {})", quote_path(&layout.data_dir(primary).join("postmaster.pid"))));
    line(&format!(
        "  let {primary} crash as a whole (another node takes over when its lease, 20 s at most, has run out):"
    ));
    line(&format!("    {}", demo(&format!("kill {primary}"))));
    line("  and bring it back, as a replica:");
    line(&format!("    {}", demo(&format!("start {primary}"))));
    line("");
    line(&format!(
        "Logs: {}   Configuration: {}",
        quote_path(&layout.log_dir()),
        quote_path(&layout.dir.join("n1.yml"))
    ));
    if detached {
        line(&format!("Stop: {}", demo("stop")));
    } else {
        line("Stop: Ctrl-C. The data stays; the same command continues with it.");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        for (text, want) in
            [("/a/b-1.yml", "/a/b-1.yml"), ("", "''"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("$x", "'$x'")]
        {
            assert_eq!(quote(text), want);
        }
    }
}
