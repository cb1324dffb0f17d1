const DATA = JSON.parse(document.getElementById("data").textContent);

// Every text goes through textContent: names in a run are data, never markup.
const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
};

const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
