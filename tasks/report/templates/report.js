"use strict";
for (const box of document.querySelectorAll(".table")) {
  const table = box.querySelector("table");
  const input = box.querySelector("input");
  const count = box.querySelector(".count");
  const more = box.querySelector(".more");
  const page = Number(box.dataset.page);
  const offset = table.querySelector("thead .open") ? 1 : 0;
  let bodies = [...table.tBodies];
  let limit = page;
  const texts = new Map(bodies.map((body) => [body, body.rows[0].textContent.toLowerCase()]));

  function show() {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const body of bodies) {
      const hit = words.every((word) => texts.get(body).includes(word));
      body.hidden = !hit || ++found > limit;
    }
    count.textContent = words.length ? `${found} of ${bodies.length} rows` : `${bodies.length} rows`;
    more.hidden = found <= limit;
  }

  function sort(column, th) {
    const numeric = th.classList.contains("number");
    const down = th.hasAttribute("aria-sort") ? th.getAttribute("aria-sort") === "ascending" : numeric;
    const key = (body) => body.rows[0].cells[column + offset].dataset.value;
    bodies.sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");  // Unknown values last, either way.
      const order = numeric ? Number(x) - Number(y) : x.localeCompare(y, undefined, { numeric: true });
      return down ? -order : order;
    });
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    th.setAttribute("aria-sort", down ? "descending" : "ascending");
    table.append(...bodies);
    show();
  }

  [...table.tHead.rows[0].cells].slice(offset).forEach((th, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...th.childNodes);
    th.append(button);
    button.addEventListener("click", () => sort(column, th));
  });
  function toggle(button, open) {
    button.setAttribute("aria-expanded", String(open));
    document.getElementById(button.getAttribute("aria-controls")).hidden = !open;
  }
  for (const button of table.querySelectorAll("td.open button")) toggle(button, false);
  table.addEventListener("click", (event) => {
    const button = event.target.closest("td.open button");
    if (button) toggle(button, button.getAttribute("aria-expanded") === "false");
  });
  input.addEventListener("input", () => { limit = page; show(); });
  more.addEventListener("click", () => { limit += 4 * page; show(); });
  box.querySelector(".tools").hidden = bodies.length < 8;
  show();
}
