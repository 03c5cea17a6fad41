// Pointing at a chart shows the values there. The page is complete without this script.
for (const figure of document.querySelectorAll("figure.chart")) {
  const source = figure.querySelector('script[type="application/json"]');
  if (!source) continue;
  const data = JSON.parse(source.textContent);
  const svg = figure.querySelector(".plot > svg");
  const cursor = svg.querySelector(".cursor");
  const readout = figure.querySelector(".readout");
  const scaled = (value) => (data.is_log ? Math.log(value) : value);
  const [low, high] = [scaled(data.low), scaled(data.high)];
  const short = (value) => String(Number(value.toPrecision(4)));

  const nearest = (xs, x) => {
    let low = 0, high = xs.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (xs[middle] < x) low = middle + 1; else high = middle;
    }
    return low > 0 && x - xs[low - 1] < xs[low] - x ? low - 1 : low;
  };

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const along = low + share * (high - low);
    const wanted = data.is_log ? Math.exp(along) : along;
    const drawn = data.series.filter((one) => one.x.length);
    if (!drawn.length) return;
    const parts = drawn.map((one) => {
      const index = nearest(one.x, wanted);
      return [one.x[index], `${one.label} ${short(one.y[index])}`];
    });
    const x = parts[0][0];
    const place = `${((scaled(x) - low) / (high - low)) * 100}%`;
    cursor.setAttribute("x1", place);
    cursor.setAttribute("x2", place);
    figure.classList.add("pointed");
    readout.textContent = [`${data.x} ${data.is_log ? short(x) : x}`]
      .concat(parts.map(([at, text]) => (at === x ? text : `${text} (at ${at})`)))
      .join("  ·  ");
  });
  svg.addEventListener("pointerleave", () => {
    figure.classList.remove("pointed");
    readout.textContent = "";
  });
}
