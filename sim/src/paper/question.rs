//! A user's question: how long will a job take on so many machines, what does it move, and what does a failure cost?

use super::model::{Kill, Machines, Ran, Work, run};

/// A job of no more tasks than this is simulated with as many as it would have.
const MOST_MAPS: f64 = 20_000.0;
/// Parts that a job has at most.
const MOST_REDUCES: u32 = 10_000;
/// Places of segments that are passed on in a run: more would take long.
const MOST_PLACES: f64 = 30e6;

/// What is asked. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Bytes of input.
    pub input: u64,
    /// Workers.
    pub workers: u32,
    /// Slots of each.
    pub slots: u32,
    /// `wordcount`, `grep` or `sort`.
    pub app: String,
    /// Parts; 0: as many as there are slots, at most 10,000.
    pub reducers: u32,
    /// Bytes of a map task's input.
    pub split: u64,
    /// Gigabits a second of a machine's link.
    pub nic_gbps: f64,
    /// Megabytes a second of a machine's disk, reading and writing together.
    pub disk_mbps: f64,
    /// Megabytes a second that a slot maps; 0: the app's.
    pub map_mbps: f64,
}

/// What is assumed of an app: megabytes a second that a core maps and that it sorts and reduces, bytes of segments and of
/// output for each byte of input.
struct App {
    map: f64,
    reduce: f64,
    shuffled: f64,
    written: f64,
}

fn app(name: &str) -> Result<App, String> {
    match name {
        "wordcount" => Ok(App { map: 200.0, reduce: 100.0, shuffled: 0.02, written: 0.01 }),
        "grep" => Ok(App { map: 800.0, reduce: 200.0, shuffled: 0.0001, written: 0.0001 }),
        "sort" => Ok(App { map: 150.0, reduce: 100.0, shuffled: 1.0, written: 1.0 }),
        _ => Err(format!("nothing is known of the app '{name}'; ask for wordcount, grep or sort")),
    }
}

/// A size in bytes: `10TB`, `1.5GiB`, `500 MB`, `7`.
///
/// # Errors
/// One line.
pub fn size(text: &str) -> Result<u64, String> {
    let number: String = text.trim().chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    let unit = text.trim()[number.len()..].trim();
    const UNITS: [(&str, f64); 10] = [
        ("", 1.0),
        ("B", 1.0),
        ("KB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
        ("PB", 1e15),
        ("MiB", 1048576.0),
        ("GiB", 1073741824.0),
        ("TiB", 1099511627776.0),
    ];
    let bytes = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, bytes)| bytes);
    let (number, bytes) = number
        .parse::<f64>()
        .ok()
        .zip(bytes)
        .ok_or_else(|| format!("'{text}' is no size; write 10TB, 500GB or 1GiB"))?;
    let size = number * bytes;
    if (1.0..1e18).contains(&size) {
        Ok(size as u64)
    } else {
        Err(format!("'{text}' is not between 1 byte and 1,000 PB"))
    }
}

/// Simulates it, and prints the answer.
///
/// # Errors
/// One line: what makes no sense of the question.
pub fn ask(question: &Question) -> Result<(), String> {
    let (machines, work, notes) = model(question)?;
    let ran = run(&machines, &work, None, 1);
    if ran.total == 0.0 {
        return Err("it would take longer than a day; ask for more workers or less input".into());
    }
    let killed = |at: f64| run(&machines, &work, Some(Kill { at, workers: 1 }), 1).total;
    // When the last map is done, a worker holds the most that is still needed.
    let worst = [ran.mapped, (ran.mapped + ran.fetched) / 2.0].into_iter().map(killed).fold(0.0, f64::max);
    print!("{}", answer(question, &work, &ran, worst, &notes));
    Ok(())
}

fn answer(question: &Question, work: &Work, ran: &Ran, worst: f64, notes: &[String]) -> String {
    let gb = |mb: f64| format!("{:.1} GB", mb / 1000.0);
    let mut text = format!(
        "{} of {} on {} workers of {} slots: {} maps, {} reducers\n",
        question.app,
        gb(work.input),
        question.workers,
        question.slots,
        work.maps,
        work.reduces
    );
    text += &format!("time: {} in all; maps done after {}, ", time(ran.total), time(ran.mapped));
    text += &format!("segments fetched after {}\n", time(ran.fetched.max(ran.mapped)));
    text += &format!("traffic: {} read from the store, ", gb(work.input));
    text += &format!("{} shuffled, {} written, ", gb(work.input * work.shuffled), gb(work.input * work.written));
    text += &format!("{} over the network\n", gb(ran.network));
    let more = (worst - ran.total).max(0.0);
    text +=
        &format!("a worker that dies at a bad moment costs {} more ({:.0} %)\n", time(more), more / ran.total * 100.0);
    notes.iter().for_each(|note| text += &format!("{note}\n"));
    text
}

fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 120.0 => format!("{seconds:.1} s"),
        seconds if seconds < 7_200.0 => format!("{:.1} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3600.0),
    }
}

fn model(question: &Question) -> Result<(Machines, Work, Vec<String>), String> {
    let app = app(&question.app)?;
    let bounds = [
        ("--workers", f64::from(question.workers), 1.0, 10_000.0),
        ("--slots", f64::from(question.slots), 1.0, 1024.0),
        ("--split", question.split as f64, 1e5, 1e12),
        ("--nic", question.nic_gbps, 0.001, 10_000.0),
        ("--disk", question.disk_mbps, 1.0, 1e6),
        ("--reducers", f64::from(question.reducers), 0.0, f64::from(MOST_REDUCES)),
        ("--map-speed", question.map_mbps, 0.0, 1e6),
    ];
    if let Some((flag, is, low, high)) = bounds.into_iter().find(|(_, is, low, high)| !(*low..=*high).contains(is)) {
        return Err(format!("{flag} is {is}; it is between {low} and {high}"));
    }
    let slots = question.workers.saturating_mul(question.slots);
    let reduces = if question.reducers == 0 { slots.min(MOST_REDUCES) } else { question.reducers };
    let input = question.input as f64 / 1e6;
    let wanted = (question.input as f64 / question.split as f64).ceil().max(1.0);
    let most = MOST_MAPS.min(MOST_PLACES / f64::from(question.workers)).max(f64::from(slots).min(MOST_MAPS));
    let maps = wanted.min(most);
    let mut notes = vec![format!(
        "assumed: inputs and output in a store, links of {} Gb/s, disks of {} MB/s, a slot maps {} MB/s and reduces {}, {} bytes of segments and {} of output for one of input",
        question.nic_gbps,
        question.disk_mbps,
        if question.map_mbps > 0.0 { question.map_mbps } else { app.map },
        app.reduce,
        app.shuffled,
        app.written
    )];
    if maps < wanted {
        notes.push(format!("simulated with {maps:.0} maps instead of {wanted:.0}: each stands for several"));
    }
    let nic = question.nic_gbps * 125.0;
    let machines = Machines {
        count: question.workers,
        slots: question.slots,
        disk: question.disk_mbps,
        nic,
        core: nic * f64::from(question.workers),
        map: if question.map_mbps > 0.0 { question.map_mbps } else { app.map },
        spill: 1.0,
        fetch: nic,
        sort: app.reduce,
        write: nic,
        local: false,
        copies: 1,
        start: 0.1,
        ramp: 0.0,
        task: 0.05,
        spread: 0.05,
        bad: 0.0,
        badness: 1.0,
    };
    let work = Work { input, maps: maps as u32, reduces, shuffled: app.shuffled, written: app.written, backups: true };
    Ok((machines, work, notes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question {
            input: 1_000_000_000_000,
            workers: 20,
            slots: 8,
            app: "sort".into(),
            reducers: 0,
            split: 64 << 20,
            nic_gbps: 10.0,
            disk_mbps: 1000.0,
            map_mbps: 0.0,
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(size("10TB"), Ok(10_000_000_000_000));
        assert_eq!(size("1.5 GiB"), Ok(1_610_612_736));
        assert_eq!(size("7"), Ok(7));
        for bad in ["", "TB", "10XB", "-1GB", "0", "1e9", "1.2.3MB", "9999999PB"] {
            assert!(size(bad).unwrap_err().contains(bad), "{bad}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let of = |change: fn(&mut Question)| {
            let mut question = question();
            change(&mut question);
            model(&question).unwrap_err()
        };
        assert!(of(|q| q.app = "wrodcount".into()).contains("'wrodcount'"));
        assert!(of(|q| q.workers = 0).contains("--workers is 0"));
        assert!(of(|q| q.split = 1).contains("--split"));
        let (_, work, notes) = model(&Question { input: 100_000_000_000_000, ..question() }).unwrap();
        assert!(work.maps == 20_000 && notes[1].contains("instead of 1490117"), "{notes:?}");
    }

    #[test]
    fn more_workers_are_faster_and_a_death_costs_something() {
        let total = |workers| {
            let (machines, work, _) = model(&Question { workers, input: 200_000_000_000, ..question() }).unwrap();
            (run(&machines, &work, None, 1), machines, work)
        };
        let (few, machines, work) = total(10);
        assert!(total(20).0.total < few.total * 0.7);
        let killed = run(&machines, &work, Some(Kill { at: few.mapped, workers: 1 }), 1).total;
        assert!(killed > few.total, "{killed} and {}", few.total);
        // All of it in, all of it across, all of it out.
        assert!((few.network / 600_000.0 - 1.0).abs() < 0.05, "{}", few.network);
    }
}
