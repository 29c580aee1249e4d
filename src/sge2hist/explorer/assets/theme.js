// What must happen before the first paint. Light or dark, before the first paint: as chosen last, else as the system is.
(function () {
  var chosen = null;
  try {
    chosen = localStorage.getItem("sge2hist-theme");
  } catch (error) {
    /* no storage: follow the system */
  }
  var dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  // OpenSeadragon adds a style element to the page, which the content security policy refuses, unless it finds one of that name.
  var stand_in = document.createElementNS("urn:sge2hist", "style");
  stand_in.setAttribute("data-openseadragon-mobile-css", "");
  document.head.append(stand_in);
})();
