() => {
  // [text, contrast ratio, whether it is large] of every visible text, after WCAG 2.1, 1.4.3
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 1;
  const brush = canvas.getContext('2d', { willReadFrequently: true });
  const parse = (colour) => {
    brush.clearRect(0, 0, 1, 1);
    brush.fillStyle = colour;
    brush.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = brush.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => top.slice(0, 3).map((value, i) => value * top[3] + below[i] * (1 - top[3]));
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((value) => value / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = (node) => {
    const stack = [];
    for (let at = node; at; at = at.parentElement) stack.push(parse(getComputedStyle(at).backgroundColor));
    return stack.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const opacity = (node) => {
    let product = 1;
    for (let at = node; at; at = at.parentElement) product *= Number(getComputedStyle(at).opacity);
    return product;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const node = walker.currentNode.parentElement;
    if (!text || ['STYLE', 'SCRIPT', 'NOSCRIPT', 'TITLE', 'DESC'].includes(node.tagName)) continue;
    const box = node.getBoundingClientRect();
    const style = getComputedStyle(node);
    if (box.width < 2 || box.height < 2 || style.visibility === 'hidden' || style.clipPath !== 'none') continue;
    if (node.closest('[disabled],[aria-disabled=true],[data-testid=stStatusWidget],canvas,[aria-hidden=true]')) continue;
    if (/Material/.test(style.fontFamily) || opacity(node) < 0.05) continue;
    // a slider's value hangs over the page, not over the thumb that holds it; its ends are seen on hover only
    if (node.closest('.stSlider')) continue;
    const inPicture = node.namespaceURI.endsWith('svg');
    if (inPicture && style.stroke !== 'none') continue; // the halo below a label
    const behind = background(node);
    const colour = parse(inPicture ? style.fill : style.color);
    colour[3] *= opacity(node) * (inPicture ? Number(style.fillOpacity) : 1);
    const [high, low] = [luminance(over(colour, behind)), luminance(behind)].sort((a, b) => b - a);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    found.push([text.slice(0, 60), (high + 0.05) / (low + 0.05), large]);
  }
  return found;
}
