//! `history`: the timelines of the cluster.

use pgward_core::cluster::Cluster;
use serde_json::Value;

use super::sheet::{Column, EmptyCells, Format, Sheet};

/// What `history` prints.
pub(super) fn print(cluster: &Cluster, format: Format) -> String {
    let lines = cluster.history.iter().flat_map(|history| &history.value.lines);
    let rows = lines.map(|line| {
        let optional = |text: &Option<String>| Value::from(text.clone().unwrap_or_default());
        let timeline = Value::from(line.timeline.get());
        let (timestamp, leader) = (optional(&line.timestamp), optional(&line.new_leader));
        vec![timeline, line.lsn.0.into(), line.reason.clone().into(), timestamp, leader]
    });
    let columns = [Column::right("TL"), Column::right("LSN"), Column::left("Reason"), Column::left("Timestamp")];
    let columns = columns.into_iter().chain([Column::left("New Leader")]).collect();
    Sheet { columns, rows: rows.collect(), empty_cells: EmptyCells::Keep }.print(format, None)
}
