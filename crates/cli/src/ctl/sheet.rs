//! Rows with named columns, and the formats in which they are printed.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::table::{self, Align};
use super::yaml::{self, Layout};

/// How rows are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// A table for people.
    #[default]
    Pretty,
    /// A header line and rows, separated by tabs.
    Tsv,
    /// A list of objects on one line.
    Json,
    /// A list of mappings.
    #[value(alias = "yml")]
    Yaml,
}

/// One column.
#[derive(Clone, Debug)]
pub(super) struct Column {
    /// Its name in data formats.
    pub(super) name: Cow<'static, str>,
    /// Its name above a table.
    pub(super) title: Cow<'static, str>,
    /// On which side the cells stand in a table.
    pub(super) align: Align,
}

impl Column {
    /// A column with one name everywhere, its cells on the left.
    pub(super) const fn left(name: &'static str) -> Column {
        Column { name: Cow::Borrowed(name), title: Cow::Borrowed(name), align: Align::Left }
    }

    /// A column with one name everywhere, its cells on the right.
    pub(super) const fn right(name: &'static str) -> Column {
        Column { name: Cow::Borrowed(name), title: Cow::Borrowed(name), align: Align::Right }
    }
}

/// What data formats do with a cell that holds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EmptyCells {
    /// The key is left out.
    LeaveOut,
    /// The key stays, with an empty text.
    Keep,
}

/// Rows with named columns. An empty cell holds an empty text.
#[derive(Clone, Debug)]
pub(super) struct Sheet {
    /// The columns.
    pub(super) columns: Vec<Column>,
    /// As many cells in each row as there are columns.
    pub(super) rows: Vec<Vec<Value>>,
    /// For the data formats.
    pub(super) empty_cells: EmptyCells,
}

impl Sheet {
    /// Prints the rows; the result ends with a line break. `title` stands above a table only.
    pub(super) fn print(&self, format: Format, title: Option<&str>) -> String {
        match format {
            Format::Pretty => self.table(title, Layout::Block),
            Format::Tsv => self.separated("\t"),
            Format::Json => pgward_core::json::spaced(&self.objects()) + "\n",
            Format::Yaml => yaml::write(&self.objects(), Layout::Block) + "\n",
        }
    }

    /// Prints a table, with `tags` as the layout of cells that hold a map.
    pub(super) fn table(&self, title: Option<&str>, tags: Layout) -> String {
        let header: Vec<(&str, Align)> = self.columns.iter().map(|column| (&*column.title, column.align)).collect();
        let rows: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(|cell| text(cell, tags)).collect()).collect();
        table::draw(title, &header, &rows) + "\n"
    }

    /// Prints a header line and rows, with `delimiter` between the cells.
    pub(super) fn separated(&self, delimiter: &str) -> String {
        let names: Vec<&str> = self.columns.iter().map(|column| &*column.name).collect();
        let mut lines = names.join(delimiter) + "\n";
        for row in &self.rows {
            let cells: Vec<String> = row.iter().map(|cell| text(cell, Layout::Flow)).collect();
            lines.push_str(&cells.join(delimiter));
            lines.push('\n');
        }
        lines
    }

    fn objects(&self) -> Value {
        let object = |row: &Vec<Value>| {
            let cells = self.columns.iter().zip(row).map(|(column, cell)| (column.name.to_string(), cell.clone()));
            let keep = |cell: &Value| self.empty_cells == EmptyCells::Keep || *cell != "";
            Value::Object(cells.filter(|(_, cell)| keep(cell)).collect::<Map<_, _>>())
        };
        Value::Array(self.rows.iter().map(object).collect())
    }
}

fn text(cell: &Value, layout: Layout) -> String {
    match cell {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => yaml::write(cell, layout).trim_end_matches('\n').to_owned(),
    }
}
