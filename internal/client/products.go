package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"aptfleet/internal/protocol"
)

// Products lists the products of a pipeline, by name.
func (c *Client) Products(ctx context.Context, pipeline string) ([]protocol.Product, error) {
	return get[[]protocol.Product](ctx, c, pipelinePath(pipeline, "products"), nil)
}

// Product returns one product.
func (c *Client) Product(ctx context.Context, pipeline, name string) (protocol.Product, error) {
	return get[protocol.Product](ctx, c, pipelinePath(pipeline, "products", name), nil)
}

// CreateProduct makes a product.
func (c *Client) CreateProduct(ctx context.Context, pipeline string, p protocol.Product) (protocol.Product, error) {
	return post[protocol.Product](ctx, c, pipelinePath(pipeline, "products"), p)
}

// SetProduct changes a product and returns what it is then.
func (c *Client) SetProduct(ctx context.Context, pipeline, name string, in protocol.SetProduct) (protocol.Product, error) {
	var out protocol.Product
	_, err := c.call(ctx, request{method: http.MethodPatch, path: pipelinePath(pipeline, "products", name), json: in}, &out)
	return out, err
}

// DeleteProduct deletes a product with its bills of materials, or with dryRun
// only tells whether it could be, and returns what it is or was.
func (c *Client) DeleteProduct(ctx context.Context, pipeline, name, reason string, dryRun bool) (protocol.Product, error) {
	query := because(reason)
	if dryRun {
		query.Set("dry-run", "1")
	}
	var out protocol.Product
	_, err := c.call(ctx, request{method: http.MethodDelete, path: pipelinePath(pipeline, "products", name), query: query}, &out)
	return out, err
}

// BOM returns the bill of materials of a product with modules in a state, which
// is given like PackageQuery.Ref. The server computes it if need be.
func (c *Client) BOM(ctx context.Context, pipeline, product string, modules []string, ref string) (protocol.BOM, error) {
	return get[protocol.BOM](ctx, c, pipelinePath(pipeline, "products", product, "bom"), url.Values{"ref": {ref}, "module": modules})
}

// maxBOM bounds a bill of materials in another format, in bytes.
const maxBOM = 64 << 20

// BOMText is BOM in another format: "text", as devices get it, or "cyclonedx".
func (c *Client) BOMText(ctx context.Context, pipeline, product string, modules []string, ref, format string) ([]byte, error) {
	resp, err := c.send(ctx, request{
		method: http.MethodGet, path: pipelinePath(pipeline, "products", product, "bom"),
		query: url.Values{"ref": {ref}, "module": modules, "format": {format}},
	})
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxBOM+1))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("cannot read the answer of %s: %w", c.where, err)
	}
	if len(text) > maxBOM {
		return nil, fmt.Errorf("cannot read the answer of %s: it has more than %d bytes", c.where, maxBOM)
	}
	return text, nil
}

// DiffProduct says what moving from one state to another changes for a product
// with modules; with changelogs, also what the packages say about it.
func (c *Client) DiffProduct(ctx context.Context, pipeline, product string, modules []string, from, to string, changelogs bool) (protocol.ProductDiff, error) {
	query := url.Values{"from": {from}, "to": {to}, "module": modules}
	if changelogs {
		query.Set("changelogs", "1")
	}
	return get[protocol.ProductDiff](ctx, c, pipelinePath(pipeline, "products", product, "diff"), query)
}
