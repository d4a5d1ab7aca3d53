// Package uitest tests the map in a real browser: Debian's Chromium, driven by chromedp.
package uitest
