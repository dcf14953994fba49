// Shows taps as they happen, above those that were there when the page was made.
const list = document.getElementById("taps");
const state = document.getElementById("live");
const words = JSON.parse(list.dataset.words);
const SHOWN = 20;
const time = new Intl.DateTimeFormat(document.documentElement.lang, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", timeZone: list.dataset.zone,
});

function cell(text, kind) {
  const td = document.createElement("td");
  if (kind) {
    const span = document.createElement("span");
    span.className = `state ${kind}`;
    span.textContent = text;
    td.append(span);
  } else {
    td.textContent = text;
  }
  return td;
}

const source = new EventSource(list.dataset.from);
source.addEventListener("tap", (event) => {
  const tap = JSON.parse(event.data);
  const row = document.createElement("tr");
  row.append(
    cell(time.format(new Date(tap.decided_at))),
    cell(words.doors[tap.door_id] ?? "·"),
    cell(words.reasons[tap.reason] ?? words.reasons.other, tap.decision === "grant" ? "open" : "shut"),
  );
  list.prepend(row);
  while (list.rows.length > SHOWN) list.deleteRow(-1);
});
source.addEventListener("open", () => { state.textContent = state.dataset.on; });
source.addEventListener("error", () => { state.textContent = state.dataset.off; });
